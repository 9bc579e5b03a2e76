# SPDX-License-Identifier: Apache-2.0
"""A page to look at latent actions with: what it computes, what it reads of strangers, how it is laid out and served."""
