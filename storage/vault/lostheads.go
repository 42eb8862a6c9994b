package vault

import (
	"context"
	"fmt"

	"gotong/storage"
)

// findLostHeads asks peers for the newest head when this disk lost it. With
// evidence that this device had that very head it is taken back and writing
// goes on. Without, it is read from and not written after: the disk may be a
// copy, and another device may write.
func (v *Vault) findLostHeads(ctx context.Context) error {
	v.mu.Lock()
	damaged, lost, own := v.heads.damaged(), v.heads.lost, v.heads.newest()
	v.mu.Unlock()
	if !damaged {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, headAnswerWait)
	defer cancel()
	found, err := v.segments.FindHeads(ctx, v.config.Owner)
	if err != nil {
		v.log.Info("peers could not be asked for lost heads", "err", err)
	}
	newest := v.newestOf(found)
	if newest.IsZero() || !newest.Newer(own) {
		return nil
	}
	had := newest.Seq == lost
	if !had && !v.index.broken.Load() {
		if had, err = v.index.applied(newest.ID); err != nil {
			v.log.Debug("index", "err", err)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !had {
		v.foreign = newest
		return nil
	}
	v.log.Warn("a head was lost on this disk; it is taken back from peers", "number", newest.Seq)
	if err := v.heads.append(newest); err != nil {
		return fmt.Errorf("take head %d back: %w", newest.Seq, err)
	}
	v.foreign = storage.SignedHead{}
	return nil
}

// newestOf returns the newest head of this vault; the zero value when there is
// none.
func (v *Vault) newestOf(found []storage.VaultHeads) (newest storage.SignedHead) {
	for _, heads := range found {
		if heads.Vault != v.ID() || len(heads.Links) == 0 {
			continue
		}
		head, err := storage.ParseHead(heads.Links[len(heads.Links)-1])
		if err != nil || head.Vault != v.ID() || head.Owner != v.config.Owner {
			continue
		}
		if newest.IsZero() || head.Newer(newest) {
			newest = head
		}
	}
	return newest
}

// readFrom returns the head to read from: that of this device, or what peers
// have when it was lost.
func (v *Vault) readFrom() storage.SignedHead {
	v.mu.Lock()
	defer v.mu.Unlock()
	if own := v.heads.newest(); own.IsZero() || v.foreign.Newer(own) && v.heads.damaged() {
		if !v.foreign.IsZero() {
			return v.foreign
		}
	}
	return v.heads.newest()
}
