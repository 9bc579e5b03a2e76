# SPDX-License-Identifier: Apache-2.0
"""
One module a verb of the command line. `parse` makes its arguments of the strings behind the verb, `run` does the work
and returns what is to be printed. Both import what they need themselves, so that the list of verbs costs nothing.
"""
