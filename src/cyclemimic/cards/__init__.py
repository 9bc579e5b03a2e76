# SPDX-License-Identifier: Apache-2.0
"""Model and data set cards: what was run, on what, and what has been measured of it."""
