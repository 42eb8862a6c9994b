package segments

import (
	"context"
	"fmt"
	"time"

	"gotong/storage"
	"gotong/storage/placement"
)

// Put says what became of a segment.
type Put struct {
	ID         storage.SegmentID
	Header     storage.SignedHeader
	Redundancy storage.Redundancy
	Holders    []storage.Holder // of the shards that are durable, by shard
	Missing    []int            // shards that nobody holds yet

	Acked     int  // durable shards
	Committed bool // the commit rule holds and a sample was read back
	Complete  bool // all n shards are durable

	Sites         int    // different sites on which they are
	SurvivesSites int    // sites that may vanish, whichever they are
	Problem       string // what the placement could not keep to, in words; empty: nothing

	Causes []PeerError // why peers did not take shards
}

// Put stores data, 1 to storage.MaxSegmentBytes, as one segment. It keeps no
// reference to data. It returns nil when at least k shards are durable: see
// Committed and Complete. With fewer the error is a *TooFewError, and what was
// stored is of no use. When no peer has room for the shards the error is
// storage.ErrTooFewPeers.
func (s *Segments) Put(ctx context.Context, data []byte) (Put, error) {
	if len(data) == 0 || len(data) > storage.MaxSegmentBytes {
		return Put{}, fmt.Errorf("put segment: %d bytes, want 1 to %d", len(data), storage.MaxSegmentBytes)
	}
	if s.cfg.Grant == nil {
		return Put{}, fmt.Errorf("put segment: this peer has no grant to write: %w", storage.ErrDenied)
	}
	candidates := s.cfg.Holders.Candidates(ctx, s.cfg.Owner, s.self)
	r, err := s.redundancy(len(data), candidates)
	if err != nil {
		return Put{}, fmt.Errorf("put segment: %w", err)
	}
	put, err := s.put(ctx, data, r, candidates, storage.Header{
		Vault: s.cfg.Vault, Owner: s.cfg.Owner, Grant: s.cfg.Grant(), Floor: s.cfg.Floor(),
	})
	if err != nil {
		return put, fmt.Errorf("put segment: %w", err)
	}
	if !put.Complete {
		s.spool(put.ID, data)
	}
	return put, nil
}

// PutForJob stores data as one segment of a job, under its grant and until
// expires, on peers that are here: what belongs to a job is wanted now. It is
// coded by the number of their sites. Else it is as Put.
func (s *Segments) PutForJob(ctx context.Context, data []byte, grant storage.SignedJobGrant, expires time.Time) (Put, error) {
	if len(data) == 0 || len(data) > storage.MaxSegmentBytes {
		return Put{}, fmt.Errorf("put segment of a job: %d bytes, want 1 to %d", len(data), storage.MaxSegmentBytes)
	}
	candidates := placement.Here(s.cfg.Holders.Candidates(ctx, grant.Owner, s.self))
	r, err := auto(len(data), candidates)
	if err != nil {
		return Put{}, fmt.Errorf("put segment of a job: %w", err)
	}
	put, err := s.put(ctx, data, r, candidates, storage.Header{
		Vault: grant.Job, Owner: grant.Owner, Kind: storage.GrantJob, Grant: grant.Raw, Expires: expires,
	})
	if err != nil {
		return put, fmt.Errorf("put segment of a job: %w", err)
	}
	return put, nil
}

// put stores data with a header like the one given.
func (s *Segments) put(ctx context.Context, data []byte, r storage.Redundancy, candidates []placement.Candidate, like storage.Header) (Put, error) {
	release, err := s.reserve(ctx, memoryFor(len(data), r))
	if err != nil {
		return Put{}, err
	}
	defer release()
	segment, err := s.encode(data, r, like)
	if err != nil {
		return Put{}, err
	}
	defer segment.lease.release()
	plan, err := placement.Choose(segment.header.ID, r, segment.header.ShardBytes, candidates)
	if err != nil {
		return Put{}, err
	}
	u := newUpload(s, segment, plan, candidates)
	if err := u.run(ctx); err != nil {
		return Put{}, err
	}
	return u.result()
}

// spool keeps a segment of which shards are missing, so that they can be made
// without fetching it. What does not fit is fetched then.
func (s *Segments) spool(id storage.SegmentID, data []byte) {
	if s.cfg.Spool == nil {
		return
	}
	if err := s.cfg.Spool.add(id, data); err != nil {
		s.cfg.Logger.Debug("segment is not kept for its missing shards", "segment", id, "err", err)
	}
}

// result sums up.
func (u *upload) result() (Put, error) {
	acked := u.acked()
	if acked < u.r.K {
		return Put{}, &TooFewError{
			Segment: u.segment.header.ID, Need: u.r.K, Of: u.r.N, Answered: acked,
			Missing: u.causes.peersOf(), Causes: u.causes, kind: storage.ErrTooFewPeers,
		}
	}
	put := Put{
		ID: u.segment.header.ID, Header: u.segment.header, Redundancy: u.r,
		Acked: acked, Complete: acked == u.r.N,
		Committed: acked >= u.r.CommitAt() && u.check.passed,
		Causes:    u.causes,
	}
	sites := map[int]string{}
	for i := range u.shards {
		if s := &u.shards[i]; s.holder.IsZero() {
			put.Missing = append(put.Missing, i)
		} else {
			put.Holders = append(put.Holders, storage.Holder{Shard: i, Peer: s.holder, Epoch: s.moves})
			sites[i] = u.choice.site(s.holder)
		}
	}
	put.SurvivesSites = placement.SurvivesSites(u.r, sites)
	put.Sites, put.Problem = describe(u.r, sites)
	return put, nil
}

// describe counts sites and says in words which limit was not kept.
func describe(r storage.Redundancy, sites map[int]string) (count int, problem string) {
	load, worst := map[string]int{}, 0
	for _, site := range sites {
		load[site]++
		worst = max(worst, load[site])
	}
	if limit := r.PerSite(); worst > limit {
		problem = fmt.Sprintf("too few sites took shards: one holds %d of %d, where at most %d should be", worst, r.N, limit)
	}
	return len(load), problem
}
