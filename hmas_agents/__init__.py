"""Who decides, and from what?"""
