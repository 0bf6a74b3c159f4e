"""What is known of each request: whose is it, what will it cost, and what became of it?"""
