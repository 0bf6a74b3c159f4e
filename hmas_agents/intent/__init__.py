"""What do operators want, in their own words? Their texts become typed changes."""
