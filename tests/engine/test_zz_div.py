import sys; sys.path[:0]=['/work/main/tests/engine','/work/main/tests']
from test_sampling import *
from collections import Counter
@ENGINES
def test_div(name, request):
    engine=request.getfixturevalue(name)
    got=answers(engine,[PROMPT]*100,[sampled(s,**HOT) for s in range(100)])
    print("\nDIV",name,Counter(map(tuple,got)).most_common(3)[0][1], len(set(map(tuple,got))))
