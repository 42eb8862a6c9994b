package shardstore

import (
	"fmt"
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
	kept := v.chain.Keep(func(l storage.HeadLink[headPlace], above []storage.HeadLink[headPlace]) bool {
		return replacedAt(l, above)+l.Body.floor > now
	})
	if kept.Len() == v.chain.Len() {
		return v, nil
	}
	next, data, err := h.rewritten(key, &kept)
	if err != nil {
		return v, fmt.Errorf("compact heads: %w", err)
	}
	if err := h.store.replaceRecords(headsDir+"/"+key.owner.String(), key.path(), data); err != nil {
		return v, fmt.Errorf("compact heads: %w", err)
	}
	h.account(key, v, next)
	h.vaults[key] = next
	return next, nil
}

// replacedAt returns when a head's floor began to run: when the first of those
// that stand above it came. Until then it was the newest state of its vault, for
// however long; who publishes many heads at once must not push it out.
func replacedAt(l storage.HeadLink[headPlace], above []storage.HeadLink[headPlace]) time.Duration {
	if len(above) == 0 {
		return l.Body.received // a fork of the newest epoch
	}
	first := above[0].Body.received
	for _, other := range above[1:] {
		first = min(first, other.Body.received)
	}
	return max(first, l.Body.received)
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
			raw, ok := readRecord(f, link.Body.offset, link.Body.bytes)
			if !ok {
				continue // damaged since it was written; others have it
			}
			r := record{kind: kind, received: link.Body.received, raw: raw}
			next.replay(key, r, int64(len(data)))
			data = appendRecord(data, r)
		}
	}
	copyRecords(kept.Links(), recordLink)
	copyRecords(kept.Forks(), recordFork)
	next.size = int64(len(data))
	return next, data, nil
}
