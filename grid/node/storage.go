package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"gotong/grid"
	"gotong/grid/peernet"
	"gotong/grid/roster"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage"
	"gotong/storage/segments"
	"gotong/storage/shardrpc"
	"gotong/storage/shardstore"
	"gotong/storage/vault"
)

// nothing is the capacity of a store whose donor gives no disk; a capacity of
// zero would mean no limit.
const nothing = 1

// openStorage opens the shards kept for others and the own vault.
func (p *Peer) openStorage() error {
	if err := p.openStore(); err != nil {
		return err
	}
	view := p.roster.View()
	self, _ := view.Member(p.ID())
	redundancy, err := storage.ParseRedundancy(p.cfg().Redundancy)
	if err != nil {
		return err
	}
	p.holders = &gridHolders{peer: p, loads: map[grid.PeerID]knownLoad{}}
	adapter := &vaultSegments{incomplete: p.backups.refusals.add}
	p.vault, err = vault.Open(p.home.state().vault(), vault.Config{
		Segments: adapter, Node: p.node.Private(), Owner: self.Owner, Grant: p.grant,
		Floor: p.floor, Logger: p.logger,
	})
	if err != nil {
		return p.home.state().unreadable(p.home.state().vault(), err)
	}
	p.onClose(p.vault.Close)
	p.backups.redundancy.Store(&redundancy)
	p.spool, err = segments.OpenSpool(segments.SpoolConfig{
		Dir: p.home.state().spool(), Bytes: int64(p.cfg().Backup.Spool), KeepFree: uint64(p.cfg().Store.KeepFree),
	})
	if err != nil { // it is only a cache
		p.logger.Warn("data for friends who are away is not kept here", "err", err)
	}
	p.schedule = openSchedule(p.cfg().Backup.Sets, p.home.state().sets(), p.logger)
	p.segments, err = segments.New(segments.Config{
		Holders: p.holders, Node: p.node.Private(), Grant: p.grant, Vault: p.vault.ID(), Owner: self.Owner,
		Redundancy: func() storage.Redundancy { return *p.backups.redundancy.Load() },
		Floor:      p.floor, Spool: p.spool, Logger: p.logger,
		Doubt: func(peer grid.PeerID, shard storage.ShardID) { p.repair.Doubt(peer, shard) },
	})
	adapter.Segments = p.segments
	return err
}

func (p *Peer) openStore() (err error) {
	keepFree := int64(p.cfg().Store.KeepFree)
	if keepFree == 0 {
		keepFree = -1 // the store's word for nothing
	}
	p.fair = &fairShare{peer: p}
	p.fair.refresh()
	p.store, err = shardstore.Open(p.home.state().shards(), shardstore.Config{
		CapacityBytes: max(int64(p.cfg().Give), nothing), KeepFreeBytes: keepFree,
		OwnerLimit:        p.fair.limit,
		ExplainLimit:      p.fair.explain,
		Authorize:         p.authorizeHeader,
		AuthorizeHead:     func(h storage.SignedHead) error { return p.authorize(h.Owner, h.Signer, h.Allows) },
		KeepDeletions:     p.cfg().Retention.Deletions,
		AuthorizeDeletion: func(d storage.SignedDeletion) error { return p.authorize(d.Owner, d.Signer, d.Allows) },
		Logger:            p.logger,
	})
	if err != nil {
		return err
	}
	seen := storage.RemoteShards(p.store)
	if p.options.Shards != nil {
		seen = p.options.Shards(seen)
	}
	p.shards, err = shardrpc.NewServer(shardrpc.ServerConfig{
		Store: seen, Members: shardMembers{p}, Caller: peernet.CallerFrom, Logger: p.logger,
	})
	if err != nil {
		return errors.Join(err, p.store.Close())
	}
	p.onClose(func() error {
		p.shards.Wait()
		return p.store.Close()
	})
	return nil
}

// floor is the retention floor of what is stored from now on.
func (p *Peer) floor() time.Duration { return p.cfg().Retention.Floor }

// grant returns the delegation under which this peer signs for its owner.
func (p *Peer) grant() []byte {
	self, ok := p.roster.View().Member(p.ID())
	if !ok {
		return nil
	}
	return self.Signed.Encode()
}

// owner returns whose peer this is.
func (p *Peer) owner() grid.OwnerID {
	self, _ := p.roster.View().Member(p.ID())
	return self.Owner
}

// authorizeHeader judges whether a shard is taken. Any member may bring one,
// because that is how it is repaired; and the device that signed may be gone,
// because its owner still wants the data. So the owner has to be a member, and
// the delegation has to hold.
func (p *Peer) authorizeHeader(h storage.SignedHeader) error {
	view := p.roster.View()
	if view.OwnerStatus(h.Owner) != roster.StatusActive {
		return fmt.Errorf("owner %s is no member: %w", h.Owner.Short(), storage.ErrDenied)
	}
	return h.Allows(view.Grid(), time.Now())
}

// authorize judges whether something is taken that a peer signed for an owner:
// both have to be members, and the delegation has to hold in this grid, now.
func (p *Peer) authorize(owner grid.OwnerID, signer grid.PeerID, allows func(grid.GridID, time.Time) error) error {
	view := p.roster.View()
	signed, ok := view.Member(signer)
	if !ok || signed.Owner != owner {
		return storage.ErrDenied
	}
	return allows(view.Grid(), time.Now())
}

// shardMembers tells the shard service who belongs to the grid.
type shardMembers struct {
	peer *Peer
}

func (m shardMembers) OwnerOf(id grid.PeerID) (grid.OwnerID, bool) {
	member, ok := m.peer.roster.View().Member(id)
	return member.Owner, ok
}

func (m shardMembers) PeerIDs() []grid.PeerID { return m.peer.directory.Members() }

// heldBytes is how much disk this peer uses for others.
func (p *Peer) heldBytes() uint64 { return uint64(max(p.store.Stats().Bytes, 0)) }

// vaultSegments makes package segments what a vault asks for.
type vaultSegments struct {
	*segments.Segments
	incomplete func([]segments.PeerError) // is told why a put was not complete; may be nil
}

// Put stores one segment.
func (s *vaultSegments) Put(ctx context.Context, data []byte) (vault.Stored, error) {
	put, err := s.Segments.Put(ctx, data)
	if err != nil {
		return vault.Stored{}, err
	}
	if !put.Complete && s.incomplete != nil {
		s.incomplete(put.Causes)
	}
	return vault.Stored{ID: put.ID, Redundancy: put.Redundancy, ShardBytes: put.Header.ShardBytes, Holders: put.Holders,
		Committed: put.Committed, Complete: put.Complete, SurvivesSites: put.SurvivesSites}, nil
}

// Get returns a whole segment.
func (s *vaultSegments) Get(ctx context.Context, id storage.SegmentID, holders []storage.Holder, buffer []byte) ([]byte, error) {
	return s.Segments.Get(ctx, id, segments.Hint{Holders: holders, Buffer: buffer})
}

// Range returns a part of a segment that nothing vouches for.
func (s *vaultSegments) Range(ctx context.Context, id storage.SegmentID, holders []storage.Holder, off, n int64) ([]byte, error) {
	return s.Segments.Range(ctx, id, segments.Hint{Holders: holders}, off, n)
}

// handOut gives the newest head, what was pruned, and what was recovered from
// trash, to those who lack it.
func (p *Peer) handOut(ctx context.Context) (holders int, err error) {
	// Asked first: friends that know more skip old heads without a word.
	if err = p.vault.Outdated(ctx); err == nil {
		holders, err = p.vault.Publish(ctx)
	}
	if errors.Is(err, vault.ErrNewerHead) || errors.Is(err, storage.ErrStaleEpoch) || errors.Is(err, storage.ErrHeadFork) {
		p.outdated.Store(outdatedFailure(err))
	}
	if err != nil {
		return holders, err
	}
	if err := p.vault.Rescue(ctx); err != nil && ctx.Err() == nil {
		p.logger.Warn("parts of the backups that were recovered are only in the trash of friends, and could not be stored anew", "err", err)
	}
	if err := p.vault.RenewDeletions(ctx); err != nil && ctx.Err() == nil {
		p.logger.Info("what was deleted before this device took the vault over is not deleted everywhere yet", "err", err)
	}
	if err := p.vault.SendDeletions(ctx); err != nil && ctx.Err() == nil {
		p.logger.Info("what was pruned is not deleted everywhere yet", "err", err)
	}
	return holders, nil
}

// Header returns the header of a segment.
func (s *vaultSegments) Header(ctx context.Context, id storage.SegmentID) (storage.SignedHeader, error) {
	return s.Segments.Header(ctx, id, nil)
}

// listenFailure says why the one port cannot be had.
func listenFailure(listen string, err error) error {
	var op *net.OpError
	if !errors.As(err, &op) {
		return err
	}
	return &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "cannot listen on " + listen, Meaning: "the peer is not up",
		Next: "gotong up --listen HOST:PORT with another port", Err: op.Err}
}
