"""A plain socket asks the robot simulator for two packs; no line of wardwise on this side."""

import json
import re
import signal
import socket
import subprocess
import sys

command = [sys.executable, "-m", "wardwise", "wwks2-robot", "--port", "0", "--speed", "1000"]
robot = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True)
port = json.loads(robot.stdout.readline())["port"]
line = socket.create_connection(("127.0.0.1", port))
received = bytearray()


def say(message):
    """Put a message into its envelope and send it."""
    line.sendall(f'<WWKS Version="2.0">{message}</WWKS>'.encode())


def hear():
    """Print the next message: its name, what has become of it, and packs."""
    while b"</WWKS>" not in received:
        received.extend(line.recv(65536))
    message, _, received[:] = received.partition(b"</WWKS>")
    name = re.search(rb"<WWKS[^>]*><(\w+)", message)[1].decode()
    status = re.findall(rb'(?:Status|Reason)="(\w+)"', message)
    print(name, *(word.decode() for word in status), message.count(b"<Pack "), "packs")


say(
    '<HelloRequest Id="1" Source="100" Destination="999"><Subscriber Id="100" Type="IMS"'
    ' Manufacturer="me" ProductInfo="test" VersionInfo="1"/></HelloRequest>'
)
hear()
say(
    '<OutputRequest Id="RX7" Source="100" Destination="999"><Details OutputDestination="1"'
    ' Priority="High"/><Criteria ArticleId="D0001" Quantity="2"/></OutputRequest>'
)
hear()  # the request is in the queue
hear()  # the packs lie at place 1
hear()  # what is left of the article
say('<OutputRequest Id="RX8"/>')
hear()  # that was not a request

line.close()
robot.send_signal(signal.SIGINT)
print("exit code", robot.wait(timeout=20))
