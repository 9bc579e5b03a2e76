# SPDX-License-Identifier: Apache-2.0
"""
The command line: a module a verb, and beside them what several verbs ask for and open. Of a verb's module `parse` makes its
arguments of the strings behind the verb, `run` does the work and returns what is to be printed. Both import what they need
themselves, so that the list of verbs costs nothing. Nothing but the command line imports these modules.
"""
