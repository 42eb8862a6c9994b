package storage

import (
	"encoding/binary"
	"fmt"

	"gotong/grid"
)

// MaxHolders bounds a holder list: one entry for each shard.
const MaxHolders = MaxShards

// HolderBytes is the length of one encoded holder: shard, peer, epoch.
const HolderBytes = 1 + 32 + 4

// MergeHolders returns one entry for each shard that a or b names, by rising
// shard number: the one with the higher epoch, a's when they are equal. Shards
// from n on are left out.
func MergeHolders(a, b []Holder, n int) []Holder {
	var best [MaxHolders]Holder
	for _, list := range [2][]Holder{a, b} {
		for _, h := range list {
			if h.Shard < 0 || h.Shard >= min(n, MaxHolders) || h.Peer.IsZero() {
				continue
			}
			if known := best[h.Shard]; known.Peer.IsZero() || h.Epoch > known.Epoch {
				best[h.Shard] = h
			}
		}
	}
	out := make([]Holder, 0, n)
	for _, h := range best {
		if !h.Peer.IsZero() {
			out = append(out, h)
		}
	}
	return out
}

// AppendHolders appends the encoded list: shard, peer and epoch of each.
func AppendHolders(b []byte, holders []Holder) []byte {
	for _, h := range holders {
		b = append(b, byte(h.Shard))
		b = append(b, h.Peer[:]...)
		b = binary.BigEndian.AppendUint32(b, h.Epoch)
	}
	return b
}

// ParseHolders reads what AppendHolders wrote. The list is a hint from another
// peer: it is bounded here and otherwise believed by nobody.
func ParseHolders(b []byte) ([]Holder, error) {
	if len(b)%HolderBytes != 0 || len(b) > MaxHolders*HolderBytes {
		return nil, fmt.Errorf("%w: holder list of %d bytes", ErrCorrupt, len(b))
	}
	out := make([]Holder, 0, len(b)/HolderBytes)
	for ; len(b) > 0; b = b[HolderBytes:] {
		h := Holder{Shard: int(b[0]), Peer: grid.PeerID(b[1:]), Epoch: binary.BigEndian.Uint32(b[33:])}
		if h.Shard >= MaxShards || h.Peer.IsZero() {
			return nil, fmt.Errorf("%w: holder list names shard %d at %s", ErrCorrupt, h.Shard, h.Peer.Short())
		}
		out = append(out, h)
	}
	return out, nil
}
