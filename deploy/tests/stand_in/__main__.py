"""python -m stand_in -H 127.0.0.1 -p PORT"""

import sys

from moto.server import main

from . import apis, repairs, types

types.install()
repairs.install()
apis.install()
main(sys.argv[1:])
