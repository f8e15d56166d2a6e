"""`kennel train --local`: the jobs of the pipeline as processes on this machine. No AWS, not even a rehearsed one."""
