"""A server that is stopped while requests run and wait."""

from concurrent.futures import ThreadPoolExecutor

from server_process import start, stop, wait_until_healthy


def test_all_requests_get_an_error_and_nothing_holds_the_server_back(tmp_path):
    server = start(tmp_path, max_num_seqs=2)
    wait_until_healthy(server)
    streams = [i % 2 == 0 for i in range(6)]
    with ThreadPoolExecutor(len(streams)) as pool:
        answers = [pool.submit(server.ask_long, stream) for stream in streams]
        server.wait(lambda: server.metric("num_requests_running") == 2, "running requests")
        server.wait(lambda: server.metric("num_requests_waiting") == 4, "waiting requests")
        stop(server)
        errors = [answer.result() for answer in answers]
    for stream, error in zip(streams, errors, strict=True):
        assert "The server was stopped." in error.message
        # a stream has sent its status, 200, before: there the error is an event
        assert stream or error.status_code == 503, error
