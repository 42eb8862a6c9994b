package shardstore

import (
	"errors"
	"io/fs"
	"slices"
	"time"

	"gotong/grid"
	"gotong/storage"
)

// expire forgets deletions that are older than what is to be remembered, in those files of which
// they make up a good part.
func (d *deletionStore) expire(now time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := false
	for key, v := range d.vaults {
		var old int64
		for _, p := range v.list {
			if p.received+d.store.cfg.KeepDeletions <= now {
				old += recordSize(p.bytes)
			}
		}
		if old == 0 || old < v.size/8 {
			continue
		}
		if err := d.rewrite(key, v, now); err != nil {
			return err
		}
		changed = true
	}
	if !changed {
		return nil
	}
	return d.nameAnew()
}

// rewrite replaces a file by one without the deletions that are too old. It
// remembers up to which number all were known.
func (d *deletionStore) rewrite(key vaultKey, v *vaultDeletions, now time.Duration) error {
	f, err := d.store.fs.Open(key.deletionPath())
	if err != nil {
		return err
	}
	defer f.Close()
	next := &vaultDeletions{number: v.number, settled: true, known: v.upTo()}
	data := appendRecord(nil, record{kind: recordKnown, received: now, raw: encodeKnown(next.known)})
	for _, p := range v.list {
		if p.received+d.store.cfg.KeepDeletions <= now {
			continue
		}
		raw, ok := readRecord(f, p.offset, p.bytes)
		if !ok {
			continue // damaged since it was written; others have it
		}
		p.offset = int64(len(data))
		data = appendRecord(data, record{kind: recordDeletion, received: p.received, raw: raw})
		next.list = append(next.list, p)
	}
	next.size = int64(len(data))
	if err := d.store.replaceRecords(deletionsDir+"/"+key.owner.String(), key.deletionPath(), data); err != nil {
		return err
	}
	d.account(key, v, next)
	d.vaults[key] = next
	return nil
}

// nameAnew makes the list of named segments from the files.
func (d *deletionStore) nameAnew() error {
	var all namedList
	for key, v := range d.vaults {
		f, err := d.store.fs.Open(key.deletionPath())
		if err != nil {
			return err
		}
		for _, p := range v.list {
			raw, _ := readRecord(f, p.offset, p.bytes)
			parsed, err := storage.ParseKnownDeletion(raw)
			if err != nil {
				continue
			}
			for _, id := range parsed.Segments {
				all = append(all, nameOf(id, v.number))
			}
		}
		_ = f.Close() // only read
	}
	d.named = all.sorted()
	return nil
}

// forget removes all of an owner.
func (d *deletionStore) forget(owner grid.OwnerID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, v := range d.vaults {
		if key.owner != owner {
			continue
		}
		if err := d.store.fs.Remove(key.deletionPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return ioFailed(err)
		}
		d.account(key, v, nil)
		delete(d.vaults, key)
		d.named = slices.DeleteFunc(d.named, func(n named) bool { return n.vault == v.number })
	}
	return nil
}
