"""Package data only: the Kubernetes objects of a testbed (docs/kubernetes-manifests.md)."""
