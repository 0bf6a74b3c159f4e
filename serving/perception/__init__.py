"""What will a request cost, and how long will its answer be?"""
