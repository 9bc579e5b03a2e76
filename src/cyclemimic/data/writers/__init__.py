# SPDX-License-Identifier: Apache-2.0
"""Data sets as LeRobot writes them, and video files."""
