# SPDX-License-Identifier: Apache-2.0
"""Every form that video comes in, as one view of its episodes."""
