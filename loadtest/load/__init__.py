"""What the load test measures and how it reports; the test itself is loadtest/locustfile.py.

Only the modules named locust_* import Locust, which patches the whole process for gevent.
"""
