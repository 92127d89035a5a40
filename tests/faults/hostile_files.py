"""Files that run code where they are unpickled, and pictures of absurd sizes, tiny."""

import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib

import torch
from mmengine.logging import HistoryBuffer


class Attack:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.made_by = function, arguments

    def __reduce__(self):
        return self.made_by

    def __call__(self):
        """pickle asks that what is called can be."""


def by_system(marker):
    return Attack(os.system, f'touch {marker}')


def by_eval(marker):
    return Attack(eval, f'open({str(marker)!r}, "w").close()')


def by_getattr(marker):
    """By no other names than those that mmengine allows: they reach everything."""

    def item(mapping, key):
        return Attack(Attack(getattr, mapping, '__getitem__'), key)

    reached = Attack(getattr, HistoryBuffer.mean, '__globals__')
    found = item(item(reached, '__builtins__'), 'eval')
    return Attack(found, f'open({str(marker)!r}, "w").close()')


def planted(content, place, attack):
    """A copy of a checkpoint with an attack in one of its parts."""
    content = dict(content)
    if place is None:
        return attack
    *parts, last = place
    inner = content
    for part in parts:
        inner[part] = dict(inner[part])
        inner = inner[part]
    inner[last] = attack
    return content


def in_place(*place, by=by_system, **how):
    def write(path, marker, content):
        torch.save(planted(content, place or None, by(marker)), path, **how)

    return write


def as_pickle(path, marker, content):
    path.write_bytes(pickle.dumps(planted(content, ('evil',), by_system(marker)), 2))


def as_tar(path, marker, content):
    """The format of torch before 0.1.11."""
    attack = pickle.dumps(by_system(marker), 2)
    with tarfile.open(path, 'w') as file:
        for name in ('pickle', 'storages', 'tensors'):
            member = tarfile.TarInfo(name)
            member.size = len(attack)
            file.addfile(member, io.BytesIO(attack))


def as_odd_zip(path, marker, content):
    """Names that climb out, are absolute or stand twice, beside the usual ones."""
    torch.save(planted(content, ('evil',), by_system(marker)), path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    top = next(iter(members)).split('/')[0]
    attack = pickle.dumps(by_system(marker), 2)
    names = (
        '../../data.pkl',
        '/tmp/data.pkl',
        f'{top}/../data.pkl',
        f'{top}\\data.pkl',
    )
    with zipfile.ZipFile(path, 'w') as file:
        for name, data in members.items():
            file.writestr(name, data)
        for name in names:
            file.writestr(name, attack)


def as_bomb(path, marker, content):
    """A deflated member that unpacks to a thousand times its size."""
    torch.save(content, path)
    with zipfile.ZipFile(path, 'a', zipfile.ZIP_DEFLATED) as file:
        file.writestr('more/data', bytes(4 << 20))


def with_config(path, marker, content):
    """Weights as they are; the text of the config is a program."""
    text = f'open({str(marker)!r}, "w").close()\n' + content['meta']['cfg']
    content = planted(content, ('meta', 'cfg'), text)
    content = planted(content, ('meta', 'config'), text)
    torch.save(planted(content, ('message_hub', 'runtime_info', 'cfg'), text), path)


def victim_of(marker):
    """Somebody's folder, whose name is a checkpoint's."""
    return marker.with_name('iter_7.pth')


def with_paths(path, marker, content):
    """Weights as they are; it calls a folder its own checkpoint, to be replaced."""
    victim = victim_of(marker)
    victim.mkdir()
    (victim / 'thesis.tex').write_text('precious')
    for name in ('best_ckpt', 'interrupted_ckpt', 'last_ckpt'):
        content = planted(content, ('message_hub', 'runtime_info', name), str(victim))
        content = planted(content, ('message_hub', 'resumed_keys', name), True)
    # The training is not at its end, so that it saves.
    torch.save(planted(content, ('meta', 'iter'), 1), path)


CHECKPOINTS = {
    'all of it': in_place(),
    'in the state dict': in_place('state_dict', 'evil'),
    'in the message hub': in_place('message_hub', 'log_scalars', 'evil'),
    'in the optimizer': in_place('optimizer', 'evil'),
    'in the meta, by eval': in_place('meta', 'evil', by=by_eval),
    'by getattr': in_place('message_hub', 'runtime_info', 'evil', by=by_getattr),
    'old format': in_place('evil', _use_new_zipfile_serialization=False),
    'protocol 4': in_place('evil', pickle_protocol=4),
    'pickle': as_pickle,
    'tar': as_tar,
    'odd zip': as_odd_zip,
    'bomb': as_bomb,
    'config': with_config,
    'paths': with_paths,
}
# What torch.load(weights_only=False) runs; the others are made for other readers.
REAL = [
    kind for kind in CHECKPOINTS if kind not in ('bomb', 'config', 'odd zip', 'paths')
]


# Pictures: 60,000 x 60,000 in a header, and next to nothing behind it

SIDE = 60_000


def _chunk(kind, data):
    body = kind + data
    return struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))


def png(width=SIDE, height=SIDE):
    header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(b'')
    chunks = _chunk(b'IHDR', header) + _chunk(b'IDAT', data) + _chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + chunks


def jpeg(width=SIDE, height=SIDE, junk=b''):
    comment = b'\xff\xfe\x00\x06text'
    frame = struct.pack('>BHHB', 8, height, width, 1) + b'\1\x11\0'
    size = b'\xff\xff\xc0' + struct.pack('>H', len(frame) + 2) + frame
    scan = b'\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00'
    return b'\xff\xd8' + junk + comment + size + scan + bytes(64) + b'\xff\xd9'


def tiff(width=SIDE, height=SIDE, order='<', kind=4, more=()):
    entries = (
        (256, kind, 1, width),
        (257, kind, 1, height),
        *more,
        (258, 4, 1, 8),
        (259, 4, 1, 1),
        (262, 4, 1, 1),
        (273, 4, 1, 8),
        (278, 4, 1, height),
        (279, 4, 1, 64),
    )
    head = b'II*\0' if order == '<' else b'MM\0*'
    body = struct.pack(f'{order}H', len(entries))
    for entry in entries:
        body += struct.pack(f'{order}HHII', *entry)
    return head + struct.pack(f'{order}I', 8) + body + bytes(64)


def big_tiff(width=SIDE, height=SIDE):
    entries = struct.pack('<HHQQHHQQ', 256, 4, 1, width, 257, 16, 1, height)
    return b'II+\0' + struct.pack('<HHQQ', 8, 0, 16, 2) + entries + bytes(64)


def webp(width=SIDE, height=SIDE):
    """The extended format; the others end at 16,384."""
    sides = (width - 1).to_bytes(3, 'little') + (height - 1).to_bytes(3, 'little')
    body = b'VP8X' + struct.pack('<I', 10) + bytes(4) + sides
    body += b'VP8L' + struct.pack('<I', 8) + b'\x2f' + bytes(7)
    return b'RIFF' + struct.pack('<I', 4 + len(body)) + b'WEBP' + body


def bmp(width=SIDE, height=SIDE):
    head = struct.pack('<IHHI', 54 + 64, 0, 0, 54)
    info = struct.pack('<IiiHHIIiiII', 40, width, -height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b'BM' + head + info + bytes(64)


def gif(width=SIDE, height=SIDE):
    """A format that the package does not name, but decoders know."""
    return b'GIF89a' + struct.pack('<HH', width, height) + bytes(3) + b';'


def gif_frame(width=SIDE, height=SIDE):
    """A frame that is larger than the header says; the picture is as large as that."""
    frame = b',' + struct.pack('<HHHHB', 0, 0, width, height, 0)
    palette = b'\x80\0\0' + bytes(6)
    data = b'\x02\x02\x4c\x01\0;'
    return b'GIF89a' + struct.pack('<HH', 10, 10) + palette + frame + data


# Formats that OpenCV knows and Pillow does not
def radiance(width=SIDE, height=SIDE):
    return b'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n' % (height, width)


def pam(width=SIDE, height=SIDE):
    sides = b'WIDTH %d\nHEIGHT %d\n' % (width, height)
    return b'P7\n' + sides + b'DEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n'


PICTURES = {
    'PNG': png,
    'JPEG': jpeg,
    'JPEG, a marker alone': lambda: jpeg(junk=b'\xff\xd0'),
    'JPEG, junk': lambda: jpeg(junk=b'\xff\0\1\2'),
    'TIFF, signed': lambda: tiff(kind=9),
    'TIFF, said twice': lambda: tiff(more=[(256, 4, 1, 8), (257, 4, 1, 8)]),
    'TIFF': tiff,
    'TIFF, big endian': lambda: tiff(order='>'),
    'BigTIFF': big_tiff,
    'WebP': webp,
    'BMP': bmp,
    'GIF': gif,
}
