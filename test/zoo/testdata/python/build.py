"""What python3-docker's users build with: images.build, api.build, errors, caches."""

import io
import os
import tarfile
import tempfile

import docker

client = docker.from_env()


def context(files):
    buf = io.BytesIO()
    with tarfile.open(fileobj=buf, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    buf.seek(0)
    return buf


# A directory, with an ignore file, arguments, labels and a target.
with tempfile.TemporaryDirectory() as d:
    def put(name, text):
        with open(os.path.join(d, name), "w") as f:
            f.write(text)

    put("Dockerfile", "FROM box AS one\nARG A\nCOPY . /ctx\nRUN echo $A > /a\nFROM one AS two\nRUN exit 4\n")
    put(".dockerignore", "*.log\n")
    put("keep.txt", "keep")
    put("drop.log", "drop")
    image, log = client.images.build(path=d, tag="py-dir:1", buildargs={"A": "argument"}, labels={"l": "1"}, target="one", rm=True, forcerm=True)
    lines = [m for m in log]
    assert image.tags == ["py-dir:1"], image.tags
    assert image.labels["l"] == "1", image.labels
    text = "".join(m.get("stream", "") for m in lines)
    assert "Step 1/" in text and "Successfully built" in text and "Successfully tagged py-dir:1" in text, text
    assert any(m.get("aux", {}).get("ID", "").startswith("sha256:") for m in lines), lines
    out = client.containers.run("py-dir:1", "sh -c 'cat /a; ls /ctx'", remove=True).decode()
    assert out.split() == ["argument", "Dockerfile", "keep.txt"], out

    # Again: nothing runs, and it is the same image. Without the cache it does.
    same, log = client.images.build(path=d, tag="py-dir:2", buildargs={"A": "argument"}, labels={"l": "1"}, target="one")
    assert same.id == image.id, (same.id, image.id)
    assert "Using cache" in "".join(m.get("stream", "") for m in log)
    _, log = client.images.build(path=d, tag="py-dir:3", buildargs={"A": "argument"}, target="one", nocache=True)
    assert "Using cache" not in "".join(m.get("stream", "") for m in log)

    # A step that fails: the command and its exit code, and what it said.
    try:
        client.images.build(path=d, buildargs={"A": "argument"})
    except docker.errors.BuildError as e:
        assert "returned a non-zero code: 4" in e.msg, e.msg
    else:
        raise AssertionError("a failed build succeeded")

# A Dockerfile alone.
image, _ = client.images.build(fileobj=io.BytesIO(b"FROM box\nENV FROM_FILE=yes\nCMD echo $FROM_FILE\n"), tag="py-file")
assert client.containers.run("py-file", remove=True).decode() == "yes\n"

# A tar of our own, gzipped or not, with the Dockerfile elsewhere; the low-level messages as they come.
for encoding, data in ((None, context({"dir/Dockerfile": "FROM box\nCOPY x /x\n", "x": "xyz"})),):
    messages = list(client.api.build(fileobj=data, custom_context=True, encoding=encoding, dockerfile="dir/Dockerfile", tag="py-tar", decode=True, rm=True, shmsize=1 << 26, network_mode="none", extra_hosts={"h": "10.9.8.7"}))
    assert not any("error" in m for m in messages), messages
assert client.containers.run("py-tar", "cat /x", remove=True).decode() == "xyz"

# What cannot be: no Dockerfile, nonsense in it, an image that is nowhere.
for files, want in (
    ({"x": "y"}, "Dockerfile"),
    ({"Dockerfile": "FROM box\nNONSENSE\n"}, "unknown instruction: NONSENSE"),
):
    try:
        for m in client.api.build(fileobj=context(files), custom_context=True, decode=True):
            if "error" in m:
                raise docker.errors.BuildError(m["error"], [])
    except (docker.errors.BuildError, docker.errors.APIError) as e:
        assert want in str(e), e
    else:
        raise AssertionError(files)

# The cache, and that it goes.
pruned = client.api.prune_builds()
assert "SpaceReclaimed" in pruned, pruned
usage = client.df()
assert "BuildCache" in usage or "BuildCacheUsage" in usage, usage.keys()
print("python3-docker builds")
