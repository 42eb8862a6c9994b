package vault

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"gotong/grid"
	"gotong/grid/blake3"
	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
	"gotong/storage/seal"
)

// The catalogue is a list of parts, each sealed under the index key in a
// segment of its own. A session appends one. Parts that are not much longer
// than a new one are merged into it, so there are few, and little is sent
// again: each byte moves a logarithmic number of times.
const (
	catalogueVersion = 1
	purposeCatalogue = "catalogue"
	maxParts         = 32
	// maxPartBytes leaves room for padding in a segment.
	maxPartBytes = 15 << 20
	// What a part holds before another one is begun, so that a first backup of
	// any size, and snapshots of any number, make parts that fit.
	rowsPerPart  = 50_000
	bytesPerPart = 8 << 20
	maxPeers     = 1 << 16 // that one part refers to
	maxSegments  = 1 << 26 // of a vault: a petabyte
)

// SnapshotID names a snapshot: BLAKE3 of its sealed record.
type SnapshotID [32]byte

// partOf encodes and decodes parts of the catalogue.
func encodePart(p *vaultv1.CataloguePart) ([]byte, error) {
	p.Version = catalogueVersion
	return proto.MarshalOptions{Deterministic: true}.Marshal(p)
}

// parsePart reads a part and checks that all in it fits together. The error is
// storage.ErrCorrupt.
func parsePart(b []byte) (*vaultv1.CataloguePart, error) {
	var p vaultv1.CataloguePart
	if err := proto.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("%w: catalogue: %w", storage.ErrCorrupt, err)
	}
	if p.Version != catalogueVersion {
		return nil, fmt.Errorf("%w: catalogue version %d is not known", storage.ErrCorrupt, p.Version)
	}
	if len(p.Peers) > maxPeers || slices.ContainsFunc(p.Peers, func(id []byte) bool { return len(id) != 32 }) {
		return nil, fmt.Errorf("%w: catalogue: peers", storage.ErrCorrupt)
	}
	for _, s := range p.Segments {
		if err := checkSegment(s, len(p.Peers)); err != nil {
			return nil, err
		}
	}
	for _, e := range p.Snapshots {
		if len(e.GetRecord()) == 0 || len(e.GetRecord()) > seal.MaxRecordBytes {
			return nil, fmt.Errorf("%w: catalogue: snapshot record of %d bytes", storage.ErrCorrupt, len(e.GetRecord()))
		}
		if _, err := decodeNumbers(e.Segments, maxSegments); err != nil {
			return nil, fmt.Errorf("catalogue: %w", err)
		}
	}
	if slices.ContainsFunc(p.Forgotten, func(id []byte) bool { return len(id) != 32 }) {
		return nil, fmt.Errorf("%w: catalogue: id of a forgotten snapshot", storage.ErrCorrupt)
	}
	return &p, nil
}

func checkSegment(s *vaultv1.Segment, peers int) error {
	r := storage.Redundancy{K: int(min(s.GetK(), storage.MaxShards+1)), N: int(min(s.GetN(), storage.MaxShards+1))}
	toc := uint64(s.GetTocOffset()) + uint64(s.GetTocBytes())
	if len(s.GetId()) != 32 || s.Number >= maxSegments || s.GetBytes() > storage.MaxSegmentBytes || s.GetBytes() < trailerBytes ||
		toc > uint64(s.GetBytes()-trailerBytes) || r.Validate() != nil || len(s.GetHolders()) > r.N {
		return fmt.Errorf("%w: catalogue: segment %d", storage.ErrCorrupt, s.GetNumber())
	}
	for _, h := range s.GetHolders() {
		if int64(h) > int64(peers) {
			return fmt.Errorf("%w: catalogue: segment %d names peer %d of %d", storage.ErrCorrupt, s.GetNumber(), h, peers)
		}
	}
	return nil
}

// partBuilder collects rows and parts into one part with one table of peers.
type partBuilder struct {
	part  vaultv1.CataloguePart
	peers map[grid.PeerID]uint32
	bytes int // about, of snapshots
}

// roomIn returns the last builder, or a new one behind it when that is full.
func roomIn(builders *[]*partBuilder) *partBuilder {
	last := (*builders)[len(*builders)-1]
	if len(last.part.Segments) >= rowsPerPart || last.bytes >= bytesPerPart {
		last = newPartBuilder()
		*builders = append(*builders, last)
	}
	return last
}

func newPartBuilder() *partBuilder { return &partBuilder{peers: map[grid.PeerID]uint32{}} }

// peer returns the number under which holders refer to a peer: index plus 1.
func (b *partBuilder) peer(id grid.PeerID) uint32 {
	if n, ok := b.peers[id]; ok {
		return n
	}
	if len(b.part.Peers) == maxPeers {
		return 0 // a hint is lost, nothing else
	}
	b.part.Peers = append(b.part.Peers, id[:])
	b.peers[id] = uint32(len(b.part.Peers))
	return b.peers[id]
}

func (b *partBuilder) addRow(row segmentRow) {
	holders := make([]uint32, row.n)
	for _, h := range row.holders {
		if h.Shard < len(holders) {
			holders[h.Shard] = b.peer(h.Peer)
		}
	}
	b.part.Segments = append(b.part.Segments, &vaultv1.Segment{
		Number: row.number, Id: row.id[:], Bytes: row.bytes, TocOffset: row.tocOffset, TocBytes: row.tocBytes,
		K: uint32(row.k), N: uint32(row.n), Holders: holders,
	})
}

func (b *partBuilder) empty() bool {
	return len(b.part.Segments)+len(b.part.Snapshots)+len(b.part.Forgotten)+len(b.part.Dropped) == 0
}

func (b *partBuilder) addEntry(e *entry) {
	p := e.proto()
	b.part.Snapshots = append(b.part.Snapshots, p)
	b.bytes += len(p.Record) + len(p.Segments)
}

// settle leaves out snapshots that were forgotten and segments that were
// dropped. What names those of earlier parts stays, unless there are none.
func (b *partBuilder) settle(first bool) {
	forgotten, dropped := map[SnapshotID]bool{}, map[uint32]bool{}
	for _, id := range b.part.Forgotten {
		forgotten[SnapshotID(id)] = true
	}
	for _, number := range b.part.Dropped {
		dropped[number] = true
	}
	b.part.Snapshots = slices.DeleteFunc(b.part.Snapshots, func(e *vaultv1.SnapshotEntry) bool {
		id := snapshotIDOf(e.Record)
		found := forgotten[id]
		delete(forgotten, id)
		return found
	})
	b.part.Segments = slices.DeleteFunc(b.part.Segments, func(s *vaultv1.Segment) bool {
		found := dropped[s.Number]
		delete(dropped, s.Number)
		return found
	})
	b.part.Forgotten = slices.DeleteFunc(b.part.Forgotten, func(id []byte) bool { return first || !forgotten[SnapshotID(id)] })
	b.part.Dropped = slices.DeleteFunc(b.part.Dropped, func(number uint32) bool { return first || !dropped[number] })
}

// addPart appends all of p, which parsePart accepted.
func (b *partBuilder) addPart(p *vaultv1.CataloguePart) {
	for _, s := range p.Segments {
		b.addRow(rowOf(s, p.Peers))
	}
	b.part.Snapshots = append(b.part.Snapshots, p.Snapshots...)
	b.part.Forgotten = append(b.part.Forgotten, p.Forgotten...)
	b.part.Dropped = append(b.part.Dropped, p.Dropped...)
}

// rowOf returns the row of a catalogued segment; its blobs are not indexed yet.
func rowOf(s *vaultv1.Segment, peers [][]byte) segmentRow {
	row := segmentRow{
		number: s.Number, id: storage.SegmentID(s.Id), bytes: s.Bytes,
		tocOffset: s.TocOffset, tocBytes: s.TocBytes, k: uint8(s.K), n: uint8(s.N),
	}
	for shard, peer := range s.Holders {
		if peer > 0 {
			row.holders = append(row.holders, storage.Holder{Shard: shard, Peer: grid.PeerID(peers[peer-1])})
		}
	}
	return row
}

func snapshotIDOf(record []byte) SnapshotID { return blake3.Sum256(record) }

// sealPart returns the bytes of a part's segment.
func sealPart(secrets seal.VaultSecrets, plain []byte) []byte {
	return secrets.SealIndexed(nil, purposeCatalogue, padPlain(slices.Clip(plain), seal.Overhead))
}

// openPart undoes sealPart.
func openPart(secrets seal.VaultSecrets, sealed []byte) ([]byte, error) {
	padded, err := secrets.OpenIndexed(nil, purposeCatalogue, sealed)
	if err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	return unpadPlain(padded)
}
