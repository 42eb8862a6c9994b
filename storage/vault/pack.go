package vault

import (
	"encoding/binary"
	"fmt"
	"sync"

	"gotong/storage"
	"gotong/storage/seal"
)

// A pack is
//
//	sealed blobs, one behind the other
//	sealed table of contents
//	random bytes up to a padded length
//	sealed trailer, always the last trailerBytes
//
// The table of contents has one entry for each blob in the order of the pack:
// id (32), encoding (1), sealed length (4), plain length (4). The trailer has
// format version (2), zeros (2), offset (4) and length (4) of the sealed table,
// number of entries (4). Integers are big-endian. Both are sealed under the
// index key, so a write-only device can keep its index.
const (
	packVersion   = 1
	tocEntryBytes = 32 + 1 + 4 + 4
	trailerPlain  = 16
	trailerBytes  = trailerPlain + seal.Overhead

	purposeTOC     = "pack toc"
	purposeTrailer = "pack trailer"
)

// tocEntry says where one blob stands in its pack.
type tocEntry struct {
	id     BlobID
	offset uint32
	sealed uint32 // length
	plain  uint32 // length
	coding uint8
}

// packKind keeps apart what is read at different times: file content, and the
// lists and listings that lead to it.
type packKind int

const (
	packData packKind = iota
	packTree
	packKinds
)

// pack collects blobs. Space is reserved under the session's lock; the bytes
// are sealed into it by several writers at once.
type pack struct {
	buf     []byte // capacity storage.MaxSegmentBytes
	entries []tocEntry
	filling sync.WaitGroup // reserved, not sealed yet
}

// fits reports whether a blob of n sealed bytes finds room.
func (p *pack) fits(n int) bool {
	return len(p.entries) < maxPackBlobs && p.sizeWith(n, 1) <= storage.MaxSegmentBytes
}

func (p *pack) sizeWith(bytes, blobs int) int {
	return len(p.buf) + bytes + (len(p.entries)+blobs)*tocEntryBytes + seal.Overhead + trailerBytes
}

// reserve returns the place of a blob; the caller seals into it and then calls
// filling.Done.
func (p *pack) reserve(e tocEntry) []byte {
	e.offset = uint32(len(p.buf))
	end := len(p.buf) + int(e.sealed)
	p.buf = p.buf[:end]
	p.entries = append(p.entries, e)
	p.filling.Add(1)
	return p.buf[e.offset:end:end]
}

// absorb appends all of q, if there is room. Both are filled.
func (p *pack) absorb(q *pack) bool {
	if len(p.entries)+len(q.entries) > maxPackBlobs || p.sizeWith(len(q.buf), len(q.entries)) > storage.MaxSegmentBytes {
		return false
	}
	base := uint32(len(p.buf))
	p.buf = append(p.buf, q.buf...)
	for _, e := range q.entries {
		e.offset += base
		p.entries = append(p.entries, e)
	}
	return true
}

// finish appends table, padding and trailer, and returns the whole pack and
// where its sealed table is.
func (p *pack) finish(secrets seal.VaultSecrets) (data []byte, tocOffset, tocBytes int) {
	toc := make([]byte, 0, len(p.entries)*tocEntryBytes)
	for _, e := range p.entries {
		toc = append(toc, e.id[:]...)
		toc = append(toc, e.coding)
		toc = binary.BigEndian.AppendUint32(toc, e.sealed)
		toc = binary.BigEndian.AppendUint32(toc, e.plain)
	}
	tocOffset = len(p.buf)
	data = secrets.SealIndexed(p.buf, purposeTOC, toc)
	tocBytes = len(data) - tocOffset
	end := paddedSize(len(data)+trailerBytes) - trailerBytes
	pad := data[len(data):end]
	fillRandom(pad)

	var trailer [trailerPlain]byte
	binary.BigEndian.PutUint16(trailer[0:], packVersion)
	binary.BigEndian.PutUint32(trailer[4:], uint32(tocOffset))
	binary.BigEndian.PutUint32(trailer[8:], uint32(tocBytes))
	binary.BigEndian.PutUint32(trailer[12:], uint32(len(p.entries)))
	return secrets.SealIndexed(data[:end], purposeTrailer, trailer[:]), tocOffset, tocBytes
}

// parseTrailer reads the opened trailer of a pack of packBytes.
func parseTrailer(plain []byte, packBytes int) (tocOffset, tocBytes int, err error) {
	if len(plain) != trailerPlain {
		return 0, 0, fmt.Errorf("%w: pack trailer of %d bytes", storage.ErrCorrupt, len(plain))
	}
	if version := binary.BigEndian.Uint16(plain); version != packVersion {
		return 0, 0, fmt.Errorf("%w: pack version %d is not known", storage.ErrCorrupt, version)
	}
	offset, length := binary.BigEndian.Uint32(plain[4:]), binary.BigEndian.Uint32(plain[8:])
	entries := binary.BigEndian.Uint32(plain[12:])
	if entries > maxPackBlobs || uint64(length) != uint64(entries)*tocEntryBytes+seal.Overhead ||
		uint64(offset)+uint64(length) > uint64(packBytes-trailerBytes) || packBytes > storage.MaxSegmentBytes {
		return 0, 0, fmt.Errorf("%w: pack trailer names %d+%d of %d bytes", storage.ErrCorrupt, offset, length, packBytes)
	}
	return int(offset), int(length), nil
}

// parseTOC reads the opened table of a pack whose blobs take blobBytes.
func parseTOC(plain []byte, blobBytes int) ([]tocEntry, error) {
	count := len(plain) / tocEntryBytes
	if len(plain)%tocEntryBytes != 0 || count > maxPackBlobs {
		return nil, fmt.Errorf("%w: table of contents of %d bytes", storage.ErrCorrupt, len(plain))
	}
	entries := make([]tocEntry, count)
	offset := uint32(0)
	for i := range entries {
		b := plain[i*tocEntryBytes:]
		e := tocEntry{id: BlobID(b), offset: offset, coding: b[32],
			sealed: binary.BigEndian.Uint32(b[33:]), plain: binary.BigEndian.Uint32(b[37:])}
		if err := e.validate(blobBytes); err != nil {
			return nil, err
		}
		offset += e.sealed
		entries[i] = e
	}
	if int(offset) != blobBytes {
		return nil, fmt.Errorf("%w: table of contents covers %d of %d bytes", storage.ErrCorrupt, offset, blobBytes)
	}
	return entries, nil
}

func (e tocEntry) validate(blobBytes int) error {
	if e.coding != encodingRaw && e.coding != encodingZstd ||
		e.sealed <= seal.Overhead || e.sealed > maxSealedBytes || e.plain == 0 || e.plain > maxBlobBytes ||
		uint64(e.offset)+uint64(e.sealed) > uint64(blobBytes) ||
		e.coding == encodingRaw && e.sealed != e.plain+seal.Overhead {
		return fmt.Errorf("%w: blob at %d+%d, %d plain, encoding %d", storage.ErrCorrupt, e.offset, e.sealed, e.plain, e.coding)
	}
	return nil
}

// readTOC opens the table of a whole pack, found by its trailer.
func readTOC(secrets seal.VaultSecrets, data []byte) ([]tocEntry, error) {
	if len(data) < trailerBytes {
		return nil, fmt.Errorf("%w: pack of %d bytes", storage.ErrCorrupt, len(data))
	}
	plain, err := secrets.OpenIndexed(nil, purposeTrailer, data[len(data)-trailerBytes:])
	if err != nil {
		return nil, fmt.Errorf("pack trailer: %w", err)
	}
	offset, length, err := parseTrailer(plain, len(data))
	if err != nil {
		return nil, err
	}
	return openTOC(secrets, data[offset:offset+length], offset)
}

// openTOC opens a sealed table that stands at offset in its pack.
func openTOC(secrets seal.VaultSecrets, sealed []byte, offset int) ([]tocEntry, error) {
	plain, err := secrets.OpenIndexed(nil, purposeTOC, sealed)
	if err != nil {
		return nil, fmt.Errorf("pack table of contents: %w", err)
	}
	return parseTOC(plain, offset)
}
