# SPDX-License-Identifier: Apache-2.0
"""What a training needs, computed before any GPU is asked for."""
