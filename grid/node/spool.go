package node

import (
	"context"
	"time"

	"gotong/storage"
)

const (
	spoolSweep = time.Hour
	// spoolNew is how old something in the spool is before it may be dropped: a
	// backup that still runs has not noted yet that it needs it.
	spoolNew = 24 * time.Hour
)

// sweepSpool drops from the spool what the vault does not need any more, or
// what has all its shards by now, also by the doing of others.
func (p *Peer) sweepSpool(ctx context.Context) error {
	ticker := time.NewTicker(spoolSweep)
	defer ticker.Stop()
	for {
		if p.spool != nil && p.spool.Stats().Segments > 0 {
			if err := p.sweepSpoolOnce(ctx); err != nil && ctx.Err() == nil {
				p.logger.Debug("the spool is not swept", "err", err)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *Peer) sweepSpoolOnce(ctx context.Context) error {
	needed := map[storage.SegmentID]bool{} // no more than the spool holds
	for s, err := range p.vault.Segments(ctx) {
		if err != nil {
			return err
		}
		if !s.Complete && p.spool.Has(s.ID) {
			needed[s.ID] = true
		}
	}
	p.spool.Retain(func(id storage.SegmentID) bool { return needed[id] }, spoolNew)
	return nil
}
