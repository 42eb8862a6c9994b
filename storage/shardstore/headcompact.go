package shardstore

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"gotong/storage"
)

// compact rewrites a head file without the heads whose floor has passed, and
// returns what is in it then. The newest head stays whatever its age. If there
// is nothing to leave out, or v is nil, nothing changes.
func (h *headStore) compact(key vaultKey, v *vaultHeads, now time.Duration) (*vaultHeads, error) {
	if v == nil {
		return nil, nil
	}
	kept := v.chain.Keep(func(l storage.HeadLink[headPlace]) bool { return l.Body.received+l.Body.floor > now })
	if kept.Len() == v.chain.Len() {
		return v, nil
	}
	next, data, err := h.rewritten(key, &kept)
	if err != nil {
		return v, fmt.Errorf("compact heads: %w", err)
	}
	if err := h.replace(key, data); err != nil {
		return v, fmt.Errorf("compact heads: %w", err)
	}
	h.account(key, v, next)
	h.vaults[key] = next
	return next, nil
}

// rewritten returns the bytes of a head file with only the kept heads, and what
// is known of it.
func (h *headStore) rewritten(key vaultKey, kept *storage.HeadChain[headPlace]) (*vaultHeads, []byte, error) {
	f, err := h.store.fs.Open(key.path())
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	next := &vaultHeads{settled: true}
	var data []byte
	copyRecords := func(links []storage.HeadLink[headPlace], kind byte) {
		for _, link := range links {
			raw, ok := readRecord(f, link.Body)
			if !ok {
				continue // damaged since it was written; others have it
			}
			r := headRecord{kind: kind, received: link.Body.received, raw: raw}
			next.replay(key, r, int64(len(data)))
			data = appendRecord(data, r)
		}
	}
	copyRecords(kept.Links(), recordLink)
	copyRecords(kept.Forks(), recordFork)
	next.size = int64(len(data))
	return next, data, nil
}

// replace puts a new head file in the place of the old one, durably.
func (h *headStore) replace(key vaultKey, data []byte) error {
	s, temp := h.store, key.path()+tempSuffix
	if err := s.fs.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ioFailed(err)
	}
	f, err := s.fs.Create(temp)
	if err != nil {
		return ioFailed(err)
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(ioFailed(err), f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return s.syncFailed(err)
	}
	if err := s.fs.Rename(temp, key.path()); err != nil {
		return ioFailed(err)
	}
	if err := s.fs.SyncDir(headsDir + "/" + key.owner.String()); err != nil {
		return s.syncFailed(err)
	}
	return nil
}
