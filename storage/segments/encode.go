package segments

import (
	"fmt"
	"slices"
	"time"

	"gotong/storage"
	"gotong/storage/erasure"
	"gotong/storage/placement"
)

// encoded is a segment ready to be sent. Its memory is recycled when the last
// reference of the lease is released.
type encoded struct {
	header storage.SignedHeader
	shards [][]byte
	lease  *lease
}

// redundancy returns how to code a segment of size bytes now.
func (s *Segments) redundancy(size int, candidates []placement.Candidate) (storage.Redundancy, error) {
	if s.cfg.Redundancy != nil {
		if r := s.cfg.Redundancy(); !r.IsZero() {
			return r, r.Validate()
		}
	}
	return auto(size, candidates)
}

// auto codes a segment by the number of sites.
func auto(size int, candidates []placement.Candidate) (storage.Redundancy, error) {
	r := placement.Auto(placement.Sites(candidates, 1))
	if !r.IsZero() { // fewer sites may have room for a whole shard
		r = placement.Auto(placement.Sites(candidates, uint64(erasure.ShardSize(size, r))))
	}
	if r.IsZero() {
		return r, fmt.Errorf("no other site has room for a segment: %w", storage.ErrTooFewPeers)
	}
	return r, nil
}

// memoryFor returns what encode takes.
func memoryFor(size int, r storage.Redundancy) int {
	if r.K == 1 {
		return erasure.PaddedSize(size, r)
	}
	return erasure.PaddedSize(size, r) + erasure.ParitySize(size, r)
}

// encode copies data, computes the parity, and signs the header, which says for
// whom and under which grant like what is given.
func (s *Segments) encode(data []byte, r storage.Redundancy, like storage.Header) (*encoded, error) {
	segment := s.buffers.get(erasure.PaddedSize(len(data), r))
	clear(segment[copy(segment, data):])
	var parity []byte
	if r.K > 1 {
		parity = s.buffers.get(erasure.ParitySize(len(data), r))
	}
	e := &encoded{lease: newLease(func() {
		s.buffers.put(segment)
		s.buffers.put(parity)
	})}
	if err := s.fill(e, segment, parity, len(data), r, like); err != nil {
		e.lease.release()
		return nil, err
	}
	return e, nil
}

func (s *Segments) fill(e *encoded, segment, parity []byte, size int, r storage.Redundancy, like storage.Header) error {
	roots, err := e.code(segment, parity, r)
	if err != nil {
		return err
	}
	like.Redundancy, like.Bytes, like.ShardBytes = r, size, len(segment)/r.K
	like.Roots, like.Created = roots, time.Now()
	e.header, err = storage.SignHeader(s.cfg.Node, like)
	return err
}

// code fills in the shards. With k = 1 every shard is the segment itself, so
// nothing is computed and no memory taken.
func (e *encoded) code(segment, parity []byte, r storage.Redundancy) (roots [][32]byte, err error) {
	if r.K == 1 {
		e.shards = slices.Repeat([][]byte{segment}, r.N)
		return slices.Repeat(erasure.Roots(e.shards[:1]), r.N), nil
	}
	coder, err := erasure.New(r)
	if err != nil {
		return nil, err
	}
	e.shards, roots, err = coder.Encode(segment, parity)
	return roots, err
}
