package shardstore

import (
	"encoding/binary"
	"fmt"

	"gotong/grid/blake3"
	"gotong/storage"
)

// Layout of a shard file: a page with the header, a page with the holder list,
// the payload. Each page ends with its BLAKE3. docs/format.md is the
// description.
const (
	fileVersion   = 1
	pageBytes     = 4096
	pageSum       = pageBytes - 32 // offset of the page's hash
	payloadOffset = 2 * pageBytes

	offFileVersion = 8
	offFileIndex   = 10
	offFileHeader  = 12 // length of the signed header
	offFileSize    = 16 // length of the payload
	offFileRaw     = 32

	offHolderCount = 8
	offHolderList  = 16
)

var (
	fileMagic   = [8]byte{'g', 't', 's', 'h', 'a', 'r', 'd', 0}
	holderMagic = [8]byte{'g', 't', 'h', 'o', 'l', 'd', 0, 1}
)

// fileSize returns the bytes that a shard takes on disk.
func fileSize(shardBytes int) int64 { return payloadOffset + int64(shardBytes) }

// putHeaderPage fills the first page of a shard file.
func putHeaderPage(page []byte, header storage.SignedHeader, index int) {
	clear(page)
	copy(page, fileMagic[:])
	binary.BigEndian.PutUint16(page[offFileVersion:], fileVersion)
	page[offFileIndex] = byte(index)
	binary.BigEndian.PutUint32(page[offFileHeader:], uint32(len(header.Raw)))
	binary.BigEndian.PutUint64(page[offFileSize:], uint64(header.ShardBytes))
	copy(page[offFileRaw:pageSum], header.Raw)
	sealPage(page)
}

func sealPage(page []byte) {
	sum := blake3.Sum256(page[:pageSum])
	copy(page[pageSum:], sum[:])
}

func pageIntact(page []byte) bool {
	return len(page) == pageBytes && blake3.Sum256(page[:pageSum]) == [32]byte(page[pageSum:])
}

// parseHeaderPage reads the first page of the file that is stored as id. The
// error is storage.ErrCorrupt. The result refers to page.
func parseHeaderPage(page []byte, id storage.ShardID) (storage.SignedHeader, error) {
	corrupt := func(format string, args ...any) (storage.SignedHeader, error) {
		return storage.SignedHeader{}, fmt.Errorf("%w: shard file: %s", storage.ErrCorrupt, fmt.Sprintf(format, args...))
	}
	if len(page) != pageBytes || [8]byte(page) != fileMagic {
		return corrupt("does not begin as one")
	}
	if version := binary.BigEndian.Uint16(page[offFileVersion:]); version != fileVersion {
		return corrupt("version %d is not known", version)
	}
	if !pageIntact(page) {
		return corrupt("first page does not match its hash")
	}
	length := binary.BigEndian.Uint32(page[offFileHeader:])
	if length > pageSum-offFileRaw {
		return corrupt("header of %d bytes", length)
	}
	header, err := storage.ParseKnownHeader(page[offFileRaw:offFileRaw+length:offFileRaw+length], id.Segment)
	if err != nil {
		return storage.SignedHeader{}, fmt.Errorf("shard file: %w", err)
	}
	if index := int(page[offFileIndex]); index != id.Index || index >= header.Redundancy.N {
		return corrupt("holds shard %d of %d", index, header.Redundancy.N)
	}
	if size := binary.BigEndian.Uint64(page[offFileSize:]); size != uint64(header.ShardBytes) {
		return corrupt("payload of %d bytes, header says %d", size, header.ShardBytes)
	}
	return header, nil
}

// putHolderPage fills the second page. The list fits: see storage.MaxHolders.
func putHolderPage(page []byte, holders []storage.Holder) {
	clear(page)
	copy(page, holderMagic[:])
	binary.BigEndian.PutUint16(page[offHolderCount:], uint16(len(holders)))
	storage.AppendHolders(page[:offHolderList], holders)
	sealPage(page)
}

// parseHolderPage reads the second page. The list is a hint that is written in
// place, so a page that was torn in the middle simply says nothing.
func parseHolderPage(page []byte) []storage.Holder {
	if !pageIntact(page) || [8]byte(page) != holderMagic {
		return nil
	}
	end := offHolderList + storage.HolderBytes*int(binary.BigEndian.Uint16(page[offHolderCount:]))
	if end > pageSum {
		return nil
	}
	holders, err := storage.ParseHolders(page[offHolderList:end])
	if err != nil {
		return nil
	}
	return holders
}
