"""A stand-in for AWS, for the tests of deploy/: moto's server, with what our templates and scripts need and moto lacks.

moto answers CREATE_COMPLETE for resource types that it does not know and makes nothing. Here an unknown type fails the
stack, the types that we use exist (types.py), what moto drops is kept (repairs.py), and so are the calls that only our
scripts make (apis.py). It stands in for the interface; what real AWS does beyond it, deploy/README.md lists.
"""
