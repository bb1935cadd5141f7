#!/usr/bin/env bash
# hdfs namenode|datanode|check: one process of HDFS in the foreground, or whether it serves.
set -euo pipefail

# What Hadoop reaches into by reflection, and Java 17 no longer opens by itself.
opens=()
for package in java.lang java.io java.net java.nio java.util sun.nio.ch; do
    opens+=("--add-opens=java.base/$package=ALL-UNNAMED")
done

hadoop() {
    local class=$1
    shift
    "${run[@]}" java "${opens[@]}" "-Xmx${HDFS_HEAP:-192m}" -XX:+UseSerialGC \
        -Dhadoop.root.logger=WARN,console \
        -cp '/opt/hadoop/conf:/opt/hadoop/lib/*' "org.apache.hadoop.hdfs.server.$class" "$@"
}

# The body and head of what an HTTP server on this host answers; images with Java alone have no curl.
get() {
    exec 3<>"/dev/tcp/127.0.0.1/$1"
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
    cat <&3
}

# Where containers start at the same time, a name may be known a moment later, and Hadoop would end.
known() {
    local left=60
    until getent hosts "$1" >/dev/null; do
        ((left--)) || { echo "hdfs: the name '$1' is not known" >&2; exit 1; }
        sleep 1
    done
}

run=()
case ${1:-} in
namenode)
    known "${HDFS_NAMENODE:-namenode}"
    [[ -e /data/name/current/VERSION ]] || hadoop namenode.NameNode -format -nonInteractive
    run=(exec)
    hadoop namenode.NameNode
    ;;
datanode)
    known "${HDFS_NAMENODE:-namenode}"
    run=(exec)
    hadoop datanode.DataNode
    ;;
check)
    if [[ -e /data/name ]]; then
        # It answers before it can be written to: out of its safe mode, with a DataNode.
        get 9870 '/jmx?qry=Hadoop:service=NameNode,name=NameNodeInfo' | grep '"Safemode" : ""' >/dev/null
        get 9870 '/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState' |
            grep '"NumLiveDataNodes" : [1-9]' >/dev/null
    else
        get 9864 '/jmx?qry=Hadoop:service=DataNode,name=DataNodeInfo' | grep '"ClusterId" : "..*"' >/dev/null
    fi
    ;;
*)
    echo "hdfs: '${1:-}' is not known; namenode, datanode or check" >&2
    exit 2
    ;;
esac
