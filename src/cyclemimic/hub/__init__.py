# SPDX-License-Identifier: Apache-2.0
"""The last step of the flow: what was trained or labelled goes to the Hugging Face Hub."""
