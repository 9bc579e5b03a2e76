# SPDX-License-Identifier: Apache-2.0
"""The main job: every stage once, from video to a moving robot, with a report."""
