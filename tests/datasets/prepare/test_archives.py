import hashlib
import http.server
import io
import stat
import tarfile
import threading
import urllib.error
import urllib.request
import zipfile
from types import SimpleNamespace
from unittest import mock

import pytest
from hypothesis import given, strategies as st

from illama_seg import files
from illama_seg.datasets.prepare import archives
from illama_seg.datasets.prepare.archives import unpack
from illama_seg.files import download

CONTENT = bytes(range(256)) * 40
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_wait(monkeypatch):
    monkeypatch.setattr(files, '_WAIT', 0)


@pytest.fixture(scope='module')
def server():
    """A server that breaks off: `cuts` are the bytes that each answer may send."""
    state = SimpleNamespace(cuts=[], ranges=[], with_ranges=True, content=CONTENT)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path != '/file.zip':
                self.send_error(404)
                return
            asked = self.headers.get('Range')
            state.ranges.append(asked)
            use = asked and state.with_ranges
            start = int(asked.removeprefix('bytes=').rstrip('-')) if use else 0
            if start >= len(state.content):
                self.send_error(416)
                return
            rest = state.content[start:]
            self.send_response(206 if use else 200)
            self.send_header('Content-Length', str(len(rest)))
            self.end_headers()
            cut = state.cuts.pop(0) if state.cuts else len(rest)
            self.wfile.write(rest[:cut])

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        state.url = f'http://127.0.0.1:{running.server_port}/file.zip'
        yield state
        running.shutdown()


@pytest.fixture(autouse=True)
def reset(server):
    server.cuts, server.ranges, server.with_ranges = [], [], True
    server.content = CONTENT


@given(st.lists(st.integers(1, len(CONTENT)), max_size=4))
def test_a_download_goes_on_wherever_it_breaks_off(server, tmp_path_factory, cuts):
    server.cuts, server.ranges = list(cuts), []
    target = tmp_path_factory.mktemp('download') / 'file.zip'
    download(server.url, target, MD5)
    assert target.read_bytes() == CONTENT
    assert [file.name for file in target.parent.iterdir()] == ['file.zip']
    begins, had = [None], 0
    for cut in cuts:
        had += cut
        if had >= len(CONTENT):
            break
        begins.append(f'bytes={had}-')
    assert server.ranges == begins


def test_what_has_come_is_kept_for_the_next_run(server, tmp_path):
    target, server.cuts = tmp_path / 'file.zip', [1000, 0, 0, 0]
    with pytest.raises(ConnectionError, match=server.url):
        download(server.url, target, MD5)
    assert (tmp_path / 'file.zip.part').read_bytes() == CONTENT[:1000]
    server.ranges, server.cuts = [], []
    download(server.url, target, MD5)
    assert server.ranges == ['bytes=1000-'] and target.read_bytes() == CONTENT


def test_a_server_that_cannot_go_on_starts_over(server, tmp_path):
    server.with_ranges, server.cuts = False, [700]
    download(server.url, tmp_path / 'file.zip', MD5)
    assert (tmp_path / 'file.zip').read_bytes() == CONTENT


def test_a_part_that_is_whole_already_is_only_checked(server, tmp_path):
    (tmp_path / 'file.zip.part').write_bytes(CONTENT)
    download(server.url, tmp_path / 'file.zip', MD5)
    assert (tmp_path / 'file.zip').read_bytes() == CONTENT


def test_another_file_is_not_kept(server, tmp_path):
    server.content = CONTENT[:-1]
    with pytest.raises(ValueError, match=rf'expected {MD5}; nothing was kept'):
        download(server.url, tmp_path / 'file.zip', MD5)
    assert not list(tmp_path.iterdir())


def test_an_address_that_does_not_exist_is_asked_once(server, tmp_path, monkeypatch):
    asked = []
    real = files._fetch_rest
    monkeypatch.setattr(
        files, '_fetch_rest', lambda *args: asked.append(args) or real(*args)
    )
    with pytest.raises(ConnectionError, match='404') as error:
        download(f'{server.url}s', tmp_path / 'file.zip', MD5)
    assert isinstance(error.value.__cause__, urllib.error.HTTPError)
    assert len(asked) == 1


def test_a_server_that_falls_silent_is_not_waited_for_forever(server, tmp_path):
    with mock.patch('urllib.request.urlopen', wraps=urllib.request.urlopen) as opened:
        download(server.url, tmp_path / 'file.zip', MD5)
    assert 0 < opened.call_args.kwargs['timeout'] <= 120


def test_a_zip_without_its_end_is_named_with_its_size(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as file:
        file.writestr('name', 'x' * 500)
    (tmp_path / 'a.zip').write_bytes((tmp_path / 'a.zip').read_bytes()[:-60])
    with pytest.raises(ValueError, match=r'a\.zip \([0-9]+ bytes\) .*or was cut off'):
        archives.unpack(tmp_path / 'a.zip', tmp_path / 'out')


@pytest.mark.parametrize(
    'name', ['../out.txt', '/tmp/out.txt', 'a/../../out.txt', '..\\out.txt', 'C:/out']
)
def test_a_zip_that_climbs_out_writes_nothing(name, tmp_path):
    archive, folder = tmp_path / 'a.zip', tmp_path / 'deep' / 'folder'
    folder.mkdir(parents=True)
    with zipfile.ZipFile(archive, 'w') as file:
        file.writestr('good.txt', 'x')
        file.writestr(name, 'x')
    with pytest.raises(ValueError, match=r'a\.zip.*unsafe'):
        unpack(archive, folder)
    assert {p.name for p in tmp_path.rglob('*')} == {'a.zip', 'deep', 'folder'}


@pytest.mark.parametrize(
    ('name', 'kind', 'target'),
    [
        ('link', tarfile.SYMTYPE, '/etc'),
        ('link', tarfile.SYMTYPE, 'good.txt'),
        ('link', tarfile.LNKTYPE, '../../out.txt'),
        ('link', tarfile.LNKTYPE, 'good.txt'),
        ('pipe', tarfile.FIFOTYPE, ''),
        ('disk', tarfile.BLKTYPE, ''),
        ('../out.txt', tarfile.REGTYPE, ''),
        ('a/../../out.txt', tarfile.REGTYPE, ''),
        ('/tmp/out.txt', tarfile.REGTYPE, ''),
    ],
)
def test_a_tar_with_a_link_a_device_or_a_way_out_writes_nothing(
    name, kind, target, tmp_path
):
    archive, folder = tmp_path / 'a.tar.gz', tmp_path / 'folder'
    folder.mkdir()
    link = tarfile.TarInfo(name)
    link.type, link.linkname = kind, target
    with tarfile.open(archive, 'w:gz') as file:
        file.addfile(tarfile.TarInfo('good.txt'))
        file.addfile(link)
    with pytest.raises(ValueError, match=r'a\.tar\.gz.*unsafe'):
        unpack(archive, folder)
    assert not list(folder.iterdir())


@pytest.mark.parametrize('kind', [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_zip_with_a_link_or_a_device_writes_nothing(kind, tmp_path):
    archive, folder = tmp_path / 'a.zip', tmp_path / 'folder'
    member = zipfile.ZipInfo('link')
    member.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(archive, 'w') as file:
        file.writestr('good.txt', 'x')
        file.writestr(member, '/etc/passwd')
    with pytest.raises(ValueError, match=r'a\.zip is unsafe: link is a link or a dev'):
        unpack(archive, folder)
    assert not folder.exists()


@pytest.mark.parametrize('names', [('a', 'a/b'), ('a/b', 'a'), ('a/b', 'a/b/c/d')])
@pytest.mark.parametrize('form', ['.zip', '.tar.gz'])
def test_a_file_that_others_would_lie_in_is_named_and_nothing_written(
    form, names, tmp_path
):
    archive, folder = tmp_path / f'a{form}', tmp_path / 'folder'
    folder.mkdir()
    if form == '.zip':
        with zipfile.ZipFile(archive, 'w') as file:
            for name in ('good.txt', *names):
                file.writestr(name, 'x')
    else:
        with tarfile.open(archive, 'w:gz') as file:
            for name in ('good.txt', *names):
                file.addfile(tarfile.TarInfo(name))
    message = rf'unsafe: {min(names)} is a file in it and a folder'
    with pytest.raises(ValueError, match=message):
        unpack(archive, folder)
    assert not list(folder.iterdir())


def test_folders_may_be_members_too(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as file:
        for name in ('a/', 'a/b/', 'a/b/c.txt'):
            file.writestr(name, '')
    unpack(tmp_path / 'a.zip', tmp_path / 'folder')
    assert (tmp_path / 'folder' / 'a' / 'b' / 'c.txt').is_file()


@pytest.mark.parametrize('form', ['.zip', '.tar.gz'])
def test_an_archive_that_would_fill_the_disk_is_refused(form, tmp_path, monkeypatch):
    archive, folder = tmp_path / f'a{form}', tmp_path / 'folder'
    content = bytes(3 << 20)
    if form == '.zip':
        with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as file:
            file.writestr('zeros', content)
    else:
        member = tarfile.TarInfo('zeros')
        member.size = len(content)
        with tarfile.open(archive, 'w:gz') as file:
            file.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(archives, '_ALWAYS', 2 << 20)
    with pytest.raises(
        ValueError, match=r'is unsafe: .* unpack to 3,145,728, more tha'
    ):
        unpack(archive, folder)
    assert not folder.exists()
    monkeypatch.setattr(archives, '_ALWAYS', 4 << 20)  # small ones may shrink well
    folder.mkdir()
    unpack(archive, folder)
    assert (folder / 'zeros').stat().st_size == 3 << 20


def test_a_disk_that_is_too_small_is_met_before_unpacking(tmp_path, monkeypatch):
    archive, folder = tmp_path / 'a.zip', tmp_path / 'folder'
    with zipfile.ZipFile(archive, 'w') as file:
        file.writestr('good.txt', bytes(3 << 20))
    free = SimpleNamespace(free=2 << 20)
    monkeypatch.setattr(archives.shutil, 'disk_usage', lambda _: free)
    with pytest.raises(ValueError, match=r'unpacks to 3 MB, .* has 2 MB free'):
        unpack(archive, folder)
    assert not folder.exists()


def test_a_zip_with_a_password_is_named(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as file:
        file.writestr('good.txt', 'x')
    data = bytearray((tmp_path / 'a.zip').read_bytes())
    data[6] |= 1  # in the file's header, and in the directory
    data[data.index(b'PK\1\2') + 8] |= 1
    (tmp_path / 'a.zip').write_bytes(data)
    with pytest.raises(ValueError, match=r'a\.zip.*encrypted'):
        unpack(tmp_path / 'a.zip', tmp_path / 'folder')
