# What people do with Docker's Python library, on the engine at DOCKER_HOST. An exception or a failed assertion ends it.
import io
import json
import tarfile
import threading
import time

import docker
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound

client = docker.from_env(timeout=120)
api = client.api


def engine():
    assert client.ping() is True
    version = client.version()
    assert version["Os"] == "linux" and version["ApiVersion"]
    info = client.info()
    assert info["ContainersRunning"] == 0 and info["OSType"] == "linux", info
    usage = client.df()
    assert "Images" in usage or "ImageUsage" in usage, usage.keys()  # until 1.51, and since


def running():
    assert client.containers.run("box", "echo hello", remove=True) == b"hello\n"
    assert client.containers.run("box", ["sh", "-c", "echo out; echo err >&2"], stdout=True, stderr=True, remove=True) == b"out\nerr\n"
    try:
        client.containers.run("box", ["sh", "-c", "echo why >&2; exit 3"], remove=True)
        raise AssertionError("a failing command did not fail")
    except ContainerError as e:
        assert e.exit_status == 3 and e.stderr == b"why\n", e
    try:
        client.containers.run("no-such-image:one")
        raise AssertionError("an image that is not there was run")
    except (ImageNotFound, APIError):
        pass
    try:
        client.containers.get("nobody")
        raise AssertionError("a container that is not there was found")
    except NotFound as e:
        assert "No such container: nobody" in e.explanation, e.explanation


def told(wanted, ask):
    """Asks again where not all came. python3-docker reads the head of an answer through a buffer and what follows beside it: output that comes
    together with the head, as from a quick engine to a busy client, is lost to it."""
    for _ in range(20):
        got = ask()
        if wanted(got):
            return
    raise AssertionError(got)


def life():
    seen = []
    ready = threading.Event()

    def watch():
        with_stream = client.events(decode=True, filters={"container": "py-life"})
        ready.set()
        for event in with_stream:
            seen.append(event["Action"])
            if event["Action"] == "destroy":
                with_stream.close()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    ready.wait()
    time.sleep(0.2)
    c = client.containers.run(
        "box", ["sh", "-c", "trap 'exit 7' TERM; echo started; while true; do sleep 0.1; done"], name="py-life", detach=True,
        environment={"A": "b"}, labels={"zoo": "python"}, mem_limit="64m", cap_drop=["ALL"], cap_add=["NET_BIND_SERVICE"], hostname="py",
        tmpfs={"/scratch": "size=1m"}, ulimits=[docker.types.Ulimit(name="nofile", soft=100, hard=200)], working_dir="/tmp",
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 1}, read_only=True, init=True, ports={"80/tcp": None})
    def started(times):
        for _ in range(1200):
            if c.logs().count(b"started") == times:
                return
            time.sleep(0.05)
        raise AssertionError(c.logs())

    c.reload()
    assert c.status == "running" and c.labels == {"zoo": "python"} and c.attrs["HostConfig"]["Memory"] == 64 << 20
    assert c.ports["80/tcp"], c.ports
    assert [x.name for x in client.containers.list(filters={"label": "zoo=python"})] == ["py-life"]
    told(lambda r: r.exit_code != 0 and r.output.startswith(b"py\n/tmp\nb\n100\n"),
         lambda: c.exec_run(["sh", "-c", "hostname; pwd; echo $A; ulimit -n; touch /x"]))
    told(lambda r: (r.exit_code, r.output) == (0, (b"o\n", b"e\n")), lambda: c.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True))
    told(lambda out: out == b"1\n2\n", lambda: b"".join(c.exec_run(["sh", "-c", "echo 1; echo 2"], stream=True).output))
    stats = c.stats(stream=False)
    assert stats["memory_stats"]["limit"] == 64 << 20 and stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0 and stats["precpu_stats"]["system_cpu_usage"] > 0, stats
    assert next(c.stats(decode=True))["name"] == "/py-life"
    top = c.top()
    assert any("sleep" in " ".join(p) or "trap" in " ".join(p) for p in top["Processes"]), top
    started(1)
    assert c.logs() == b"started\n"
    assert c.logs(timestamps=True, tail=1).endswith(b" started\n")
    c.update(mem_limit="96m", memswap_limit="192m")
    c.pause()
    c.reload()
    assert c.status == "paused"
    c.unpause()
    c.rename("py-renamed")
    c.rename("py-life")
    c.restart(timeout=60)
    started(2)
    c.stop(timeout=60)
    assert c.wait()["StatusCode"] == 7, c.attrs["State"]
    try:
        c.kill()
        raise AssertionError("a stopped container was killed")
    except APIError as e:
        assert e.status_code == 409, e
    c.remove()
    watcher.join(60)
    for action in ("create", "start", "pause", "unpause", "rename", "restart", "die", "stop", "destroy"):
        assert action in seen, (action, seen)


def streams():
    c = client.containers.create("box", "cat", stdin_open=True, tty=False)
    sock = c.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    c.start()
    raw = sock._sock
    raw.sendall(b"over the socket\n")
    raw.settimeout(60)
    got = b""
    while not got.endswith(b"socket\n"):
        got += raw.recv(100)
    assert got[:1] == b"\x01" and got[8:] == b"over the socket\n", got
    raw.close()
    c.remove(force=True)

    # attaching before the start gets everything, with both streams apart
    c = client.containers.create("box", ["sh", "-c", "echo a; echo b >&2; echo c"])
    stream = c.attach(stream=True, demux=True, logs=False)
    c.start()
    out, err = b"", b""
    for o, e in stream:
        out, err = out + (o or b""), err + (e or b"")
    assert (out, err) == (b"a\nc\n", b"b\n"), (out, err)
    assert b"".join(c.logs(stream=True, follow=True, stderr=False)) == b"a\nc\n"
    c.remove()

    # an exec with a terminal and a size, and input
    c = client.containers.run("box", "sleep 1000", detach=True)
    exec_id = api.exec_create(c.id, ["sh", "-c", "read line; echo got $line; exit 4"], stdin=True, tty=True)["Id"]
    sock = api.exec_start(exec_id, tty=True, socket=True)
    api.exec_resize(exec_id, height=20, width=70)
    sock._sock.sendall(b"word\n")
    sock._sock.settimeout(60)
    got = b""
    while b"got word" not in got:
        part = sock._sock.recv(100)
        assert part, got
        got += part
    sock._sock.close()
    for _ in range(1200):
        state = api.exec_inspect(exec_id)
        if not state["Running"]:
            break
        time.sleep(0.05)
    assert state["ExitCode"] == 4 and state["ProcessConfig"]["tty"] is True, state
    c.remove(force=True)


def files():
    c = client.containers.run("box", "sleep 1000", detach=True)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as t:
        entry = tarfile.TarInfo("note")
        entry.size, entry.uid = 5, 1000
        t.addfile(entry, io.BytesIO(b"hello"))
    assert c.put_archive("/tmp", data.getvalue())
    told(lambda r: (r.exit_code, r.output) == (0, b"hello"), lambda: c.exec_run("cat /tmp/note"))
    bits, stat = c.get_archive("/tmp/note")
    assert stat["name"] == "note" and stat["size"] == 5
    with tarfile.open(fileobj=io.BytesIO(b"".join(bits))) as t:
        assert t.extractfile("note").read() == b"hello" and t.getmember("note").uid == 1000
    assert {"Path": "/tmp/note", "Kind": 1} in c.diff()
    try:
        c.get_archive("/nowhere")
        raise AssertionError("a path that is not there was read")
    except NotFound:
        pass
    names = tarfile.open(fileobj=io.BytesIO(b"".join(c.export()))).getnames()
    assert "tmp/note" in names
    image = c.commit("py-made", "one", message="m", changes="ENV MADE=yes")
    assert "MADE=yes" in image.attrs["Config"]["Env"]
    assert client.containers.run("py-made:one", "cat /tmp/note", remove=True) == b"hello"
    c.remove(force=True)

    assert image.tag("py-made", "two") and "py-made:two" in client.images.get("py-made:one").tags
    saved = b"".join(client.images.get("py-made:one").save(named=True))
    client.images.remove("py-made:one")
    client.images.remove("py-made:two")
    try:
        client.images.get("py-made:one")
        raise AssertionError("a removed image was found")
    except ImageNotFound:
        pass
    assert client.images.load(saved)[0].tags == ["py-made:one"]
    assert [h for h in client.images.get("py-made:one").history() if h["Comment"] == "m"]
    client.images.remove("py-made:one", force=True)


def rooms():
    net = client.networks.create("py-net", driver="bridge", labels={"zoo": "python"}, ipam=docker.types.IPAMConfig(
        pool_configs=[docker.types.IPAMPool(subnet="10.99.7.0/24", gateway="10.99.7.1")]))
    server = client.containers.run("box", ["sh", "-c", "while true; do echo served | nc -l -p 80; done"], detach=True, name="py-server", network="py-net")
    assert client.containers.run("box", ["sh", "-c", "for i in $(seq 300); do nc -w 20 py-server 80 </dev/null && exit; sleep 0.2; done; exit 1"], network="py-net", remove=True).startswith(b"served")
    other = client.containers.run("box", "sleep 1000", detach=True)
    net.connect(other, aliases=["also"], ipv4_address="10.99.7.77")
    net.reload()
    assert len(net.containers) == 2
    other.reload()
    assert other.attrs["NetworkSettings"]["Networks"]["py-net"]["IPAddress"] == "10.99.7.77"
    net.disconnect(other)
    try:
        net.remove()
        raise AssertionError("a network in use was removed")
    except APIError as e:
        assert e.status_code == 403, e
    server.remove(force=True)
    other.remove(force=True)
    net.remove()

    volume = client.volumes.create("py-volume", labels={"zoo": "python"})
    client.containers.run("box", ["sh", "-c", "echo kept >/data/file"], volumes={"py-volume": {"bind": "/data", "mode": "rw"}}, remove=True)
    assert client.containers.run("box", "cat /data/file", volumes={"py-volume": {"bind": "/data", "mode": "ro"}}, remove=True) == b"kept\n"
    mount = docker.types.Mount("/data", "py-volume", type="volume", read_only=True)
    assert client.containers.run("box", "cat /data/file", mounts=[mount], remove=True) == b"kept\n"
    assert [v.name for v in client.volumes.list(filters={"label": "zoo=python"})] == ["py-volume"]
    volume.remove()
    client.containers.prune()
    client.networks.prune()
    client.volumes.prune()


def health():
    c = client.containers.run("box", ["sh", "-c", "sleep 1; touch /ok; sleep 1000"], detach=True, healthcheck={
        "test": ["CMD", "test", "-e", "/ok"], "interval": 300_000_000, "retries": 100})
    for _ in range(600):
        c.reload()
        if c.attrs["State"].get("Health", {}).get("Status") == "healthy":
            break
        time.sleep(0.1)
    else:
        raise AssertionError(c.attrs["State"])
    c.remove(force=True)


for part in (engine, running, life, streams, files, rooms, health):
    part()
    print(part.__name__, "ok", flush=True)
print("docker-py", docker.__version__, "speaks", api._version)
