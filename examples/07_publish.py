"""Stage 6, what was trained or labelled -> the Hugging Face Hub, and from there to anyone, exactly as it was.

hf auth login
python examples/07_publish.py --tokenizer outputs/tokenizer --labels outputs/labels --owner YOUR_NAME
"""

import argparse

from transformers import AutoModel

import cyclemimic  # noqa: F401  # AutoModel then trusts no code of the repository
from cyclemimic.data import LatentLabels
from cyclemimic.hub.upload import push_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", default="outputs/tokenizer", help="a policy or an adapter goes alike")
    parser.add_argument("--labels", default="outputs/labels")
    parser.add_argument("--owner", required=True, help="you, or an organisation of yours")
    parser.add_argument("--public", action="store_true", help="without, the repositories are private")
    arguments = parser.parse_args()

    # Weights, configs, code and card in one commit; a folder with a pickle or an access token in it is refused.
    repo_id = f"{arguments.owner}/cyclemimic-tokenizer"
    commit = push_folder(arguments.tokenizer, repo_id, private=not arguments.public)
    # A branch goes on, a commit stays: by its id, everyone gets these weights. Without this package, the same line with
    # `trust_remote_code=True` runs the code that was pushed with them.
    tokenizer = AutoModel.from_pretrained(repo_id, revision=commit.oid)
    print(f"{repo_id} at {commit.oid}: {sum(weight.numel() for weight in tokenizer.parameters())} weights")

    repo_id = f"{arguments.owner}/cyclemimic-labels"
    commit = LatentLabels.from_folder(arguments.labels).push_to_hub(repo_id, private=not arguments.public)
    labels = LatentLabels.from_hub(repo_id, revision=commit.oid)
    print(f"{repo_id} at {commit.oid}: {len(labels)} labels of {labels.tokenizer}")


if __name__ == "__main__":
    main()
