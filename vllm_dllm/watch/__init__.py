"""The live page (`dllm_watch`): canvases of running requests, as they are decoded.

engine core                    a socket that only this machine sees      API server            browser
DllmScheduler -> Feed -------- events, by topic, while somebody looks --> viewer -> endpoints/watch.py --> page/
"""
