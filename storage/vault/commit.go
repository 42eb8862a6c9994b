package vault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"gotong/grid"
	"gotong/storage"
)

// headAnswerWait bounds the wait for peers that are asked for a newer head, from
// the beginning of the session, so there is seldom any wait left. Holders refuse
// a head that contradicts theirs in any case.
const headAnswerWait = 3 * time.Second

// Result says what Commit made.
type Result struct {
	Snapshot Snapshot // with its ID
	Stats    Stats
	// Health is that of all segments that the snapshot needs, its part of the
	// catalogue included; the zero value when no peer has the head.
	Health
	// HeadHolders is how many peers have the new head. When none has, the
	// snapshot exists on this device only until a later Publish.
	HeadHolders int
}

// Commit finishes the session: everything is stored and in the index, the
// catalogue gets its new part, the head is made durable here and then handed
// out. After an error there is no new snapshot, unless a later Begin finds that
// the head was durable already.
func (s *Session) Commit(snapshot Snapshot) (Result, error) {
	if s.dry {
		return Result{}, errDry
	}
	defer s.v.release(s)
	defer s.asking.Wait()
	defer s.cancel(context.Canceled)
	if err := s.drain(); err != nil {
		return Result{}, err
	}
	if err := s.awaitHeadAnswer(); err != nil {
		return Result{}, err
	}
	plain, err := snapshot.encode()
	if err != nil {
		return Result{}, err
	}
	record, err := s.v.secrets.SealRecord(plain, s.v.config.Recipients...)
	if err != nil {
		return Result{}, err
	}
	snapshot.ID = snapshotIDOf(record)
	err = s.v.publish(s.ctx, s.put, change{
		add: &entry{snapshot.ID, record, s.used}, newest: func([]entry) time.Time { return snapshot.Created }})
	if err != nil {
		return Result{}, err
	}
	holders, err := s.v.Publish(s.ctx)
	if err := s.v.publishFailed(err); err != nil {
		return Result{}, err
	}
	if err := s.v.index.view(func(tx *bbolt.Tx) error { return s.health.addRows(tx, &s.used) }); err != nil {
		return Result{}, err
	}
	result := Result{Snapshot: snapshot, Stats: s.Stats(), Health: s.health.known(), HeadHolders: holders}
	if holders == 0 {
		result.Health = Health{}
	}
	return result, nil
}

// publishFailed judges why a head is not with other peers: one that another
// device contradicts stops this one, any other is handed out later.
func (v *Vault) publishFailed(err error) error {
	switch {
	case errors.Is(err, storage.ErrHeadFork), errors.Is(err, storage.ErrStaleEpoch):
		return fmt.Errorf("%w: %w", ErrNewerHead, err)
	case err != nil:
		v.log.Warn("head is not with other peers yet", "err", err)
	}
	return nil
}

// lookForNewerHead asks the peers, in the background, whether they know a head
// of this vault that this device does not.
func (s *Session) lookForNewerHead() {
	s.asking.Go(func() { s.newerHead <- s.v.Outdated(s.ctx) })
}

// Outdated returns ErrNewerHead when peers know a head of this vault that this
// device does not, of those that answer in headAnswerWait; nil when none of them
// does, which is no proof.
func (v *Vault) Outdated(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, headAnswerWait)
	defer cancel()
	found, err := v.segments.FindHeads(ctx, v.config.Owner)
	if err != nil {
		v.log.Info("peers could not be asked for heads", "err", err)
	}
	// Only now: this device may have made another head while they answered.
	return newerThan(v.Head(), found, v.ID(), v.config.Owner)
}

// newerThan returns ErrNewerHead when one of the found heads of the vault is
// not among those that led to own.
func newerThan(own storage.SignedHead, found []storage.VaultHeads, vault storage.VaultID, owner grid.OwnerID) error {
	for _, heads := range found {
		if heads.Vault != vault || len(heads.Links) == 0 {
			continue
		}
		head, err := storage.ParseHead(heads.Links[len(heads.Links)-1])
		if err != nil || head.Vault != vault || head.Owner != owner {
			continue
		}
		forked := head.Seq == own.Seq && head.Epoch == own.Epoch && head.ID != own.ID
		if !own.IsZero() && head.Epoch > own.Epoch {
			return fmt.Errorf("%w: %w: they have number %d of epoch %d, this device's is %d",
				ErrNewerHead, storage.ErrStaleEpoch, head.Seq, head.Epoch, own.Epoch)
		}
		if own.IsZero() || head.Newer(own) || forked {
			return fmt.Errorf("%w: they have number %d of %s, this device has %d",
				ErrNewerHead, head.Seq, head.Created.UTC().Format(time.RFC3339), own.Seq)
		}
	}
	return nil
}

func (s *Session) awaitHeadAnswer() error {
	select {
	case err := <-s.newerHead:
		return err
	case <-s.ctx.Done():
		return s.err()
	}
}
