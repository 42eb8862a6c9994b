package vault

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"gotong/storage"
)

// borrowedName is the file that says that the index was made from a head of
// peers which this disk may never have had.
const borrowedName = "borrowed"

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
	if err == nil {
		if err := v.refuseRollback(own, newest); err != nil {
			return err
		}
	}
	if newest.IsZero() || !newest.Newer(own) {
		return nil
	}
	had, err := v.hadHead(newest, lost)
	if err != nil {
		return err
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

// refuseRollback returns ErrRollback when neither this disk nor any peer has a
// head as new as one that peers took from this device: who answers was set back,
// or hides it.
func (v *Vault) refuseRollback(own, newest storage.SignedHead) error {
	published, err := v.index.published()
	if err != nil || max(own.Seq, newest.Seq) >= published {
		return nil //nolint:nilerr // an index that is broken knows nothing
	}
	return fmt.Errorf("%w: they have number %d of %s, and this device gave them number %d; try again when more of them answer",
		ErrRollback, newest.Seq, newest.Created.UTC().Format(time.RFC3339), published)
}

// hadHead reports whether this disk shows that it had a head: the file of it is
// there and broken, or the index was made from it. The index shows nothing once
// it was made from what peers have, which a file remembers.
func (v *Vault) hadHead(head storage.SignedHead, lost uint64) (bool, error) {
	if head.Seq == lost {
		return true, nil
	}
	borrowed := filepath.Join(v.dir, borrowedName)
	if _, err := os.Stat(borrowed); err == nil {
		return false, nil
	}
	if !v.index.broken.Load() {
		if had, err := v.index.applied(head.ID); err == nil && had {
			return true, nil
		}
	}
	return false, v.files.writeDurable(borrowed, nil)
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
