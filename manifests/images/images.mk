# Container images: docs/images.md. Included by the Makefile.

IMAGES ?= edgenode controller trainer hdfs
IMAGE_PREFIX ?= edge-testbed
TAG ?= $(shell sed -n 's/^__version__[^"]*"\(.*\)"/\1/p' testbed/version.py)

# Empty: the public images that the Dockerfiles name.
BASE_IMAGE ?=
JRE_IMAGE ?=

# Wheels for the image's Python, whatever runs here. Empty: pip downloads inside the build instead.
WHEELHOUSE ?= build/wheelhouse
WHEELS_IN := $(or $(WHEELHOUSE),build/wheelhouse)
WHEEL_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
WHEEL_ARCH ?= $(subst arm64,aarch64,$(shell uname -m))
WHEEL_FOR := --implementation cp --python-version 3.11 $(foreach glibc,2_28 2_27 2_26 2_24 2_17 2_12 2_5, \
  --platform manylinux_$(glibc)_$(WHEEL_ARCH)) --platform manylinux2014_$(WHEEL_ARCH)

# A folder with the jars of Hadoop, where there is one already. Empty: Maven fetches them.
HADOOP_JARS ?=
HADOOP_POM := tests/services/hadoop/pom.xml

DOCKER ?= docker
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

# What goes to the engine, no more: the wheels of another image can be a gigabyte.
edgenode_PARTS := testbed edgenode
controller_PARTS := testbed controller
trainer_PARTS := $(PACKAGES)
CONTEXT := tar --create --mode='u+rwX,go+rX,go-w' --exclude __pycache__ --exclude .complete
PYTHON_IMAGES := $(filter edgenode controller trainer,$(IMAGES))

# With WHEELHOUSE and without the network where the base images are there.
.PHONY: images
images: $(addprefix image-,$(IMAGES)) ## build the container images (IMAGES, TAG, BASE_IMAGE, JRE_IMAGE)

.PHONY: $(addprefix image-,edgenode controller trainer hdfs)
$(addprefix image-,edgenode controller trainer): image-%: $(if $(WHEELHOUSE),$(WHEELHOUSE)/%/.complete)
	$(CONTEXT) constraints.txt manifests/images/$* $($*_PARTS) $(if $(WHEELHOUSE),$(WHEELHOUSE)/$*) | \
	$(DOCKER) build $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
	  --build-arg WHEELHOUSE=$(or $(WHEELHOUSE),build/none) \
	  --build-arg VERSION=$(TAG) --build-arg REVISION=$(REVISION) \
	  --file manifests/images/$*/Dockerfile --tag $(IMAGE_PREFIX)/$*:$(TAG) -

image-hdfs: build/hadoop/.complete
	$(CONTEXT) manifests/images/hdfs build/hadoop | \
	$(DOCKER) build $(if $(JRE_IMAGE),--build-arg JRE_IMAGE=$(JRE_IMAGE)) \
	  --build-arg VERSION=$(TAG) --build-arg REVISION=$(REVISION) \
	  --file manifests/images/hdfs/Dockerfile --tag $(IMAGE_PREFIX)/hdfs:$(TAG) -

.PHONY: wheelhouse
wheelhouse: $(PYTHON_IMAGES:%=$(WHEELS_IN)/%/.complete) ## download the wheels that the images are made of

# These two are published as source only; they are pure Python, so their wheels fit everywhere.
$(WHEELS_IN)/%/.complete: manifests/images/%/requirements.txt constraints.txt
	rm -rf $(@D) && mkdir -p $(dir $(@D))
	$(WHEEL_PYTHON) -m pip wheel --quiet --no-deps --wheel-dir $(@D) --constraint constraints.txt docopt hdfs
	$(WHEEL_PYTHON) -m pip download --quiet --dest $(@D) --only-binary :all: $(WHEEL_FOR) \
	  --find-links $(@D) $(addprefix --find-links ,$(WHEELS)) \
	  --constraint constraints.txt --requirement $<
	@touch $@

.PHONY: hadoop-jars
hadoop-jars: build/hadoop/.complete ## fetch the jars that the HDFS image is made of

build/hadoop/.complete: $(HADOOP_POM)
	rm -rf $(@D) && mkdir -p $(dir $(@D))
	$(if $(HADOOP_JARS),cp -r $(HADOOP_JARS) $(@D),mvn --batch-mode --quiet --file $(HADOOP_POM) \
	  dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(CURDIR)/$(@D))
	@touch $@

.PHONY: base-image
base-image: ## make the base images here, from Debian packages, where none can be pulled
	DOCKER="$(DOCKER)" IMAGE_PREFIX="$(IMAGE_PREFIX)" manifests/images/base-images.sh

# Values that differ from one installation to the next; compose.yaml and the testbed command read it.
.PHONY: compose-env
compose-env: .env credentials/operator.pem ## write .env and certificates for `docker compose up`

.env:
	@umask 077; new() { head -c 18 /dev/urandom | base64 | tr '+/' '-_'; }; { \
	  echo "TESTBED_MYSQL_PASSWORD=$$(new)"; \
	  echo "TESTBED_CONTROLLER=127.0.0.1:7440"; \
	  echo "TESTBED_CREDENTIALS=$(CURDIR)/credentials/operator.pem"; \
	  echo "TESTBED_STORAGE=mysql+pymysql://edge@127.0.0.1:13306/testbed"; \
	  $(if $(BASE_IMAGE),echo "BASE_IMAGE=$(BASE_IMAGE)";) \
	  $(if $(JRE_IMAGE),echo "JRE_IMAGE=$(JRE_IMAGE)";) \
	  $(if $(MARIADB_IMAGE),echo "MARIADB_IMAGE=$(MARIADB_IMAGE)";) \
	  echo "COMPOSE_PROJECT_NAME=edge-testbed"; echo "TAG=$(TAG)"; echo "IMAGE_PREFIX=$(IMAGE_PREFIX)"; \
	} >$@
	@echo "Wrote $@. Next: docker compose up --wait, then: set -a; . ./$@; set +a; testbed status"

# Anew with `rm -r credentials` and another `make compose-env`; NODES as the scenario has.
NODES ?= 10
credentials/operator.pem: $(STAMP)
	@$(BIN)/testbed credentials compose --nodes $(NODES) --out credentials
