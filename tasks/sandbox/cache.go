package sandbox

import (
	"bytes"
	"container/list"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"gotong/grid/disk"
)

// Cache keeps compiled code on disk, so that a module is compiled once per
// machine and not once per child. Code comes from a child that did nothing but
// compile that module; other children can read their own module's code only.
// Before a child gets code it is compared with a MAC under a key that no child
// can read; what does not match is set aside and compiled again.
//
// All of it may be deleted at any time, and a crash at any instant costs no
// more than compiling again. Methods may be called from anywhere.
type Cache struct {
	dir    string
	max    int64
	secret [32]byte
	logger *slog.Logger

	mu        sync.Mutex
	entries   map[codeKey]*list.Element // of *codeEntry
	order     *list.List                // front: used last
	used      int64
	compiling map[codeKey]*compilation
	tooLarge  map[codeKey]bool
	number    int
	counts    CacheCounts
}

type codeEntry struct {
	key  codeKey
	size int64
}

// CacheCounts are numbers since OpenCache.
type CacheCounts struct {
	Hits, Compiled, SetAside int
}

// Names below a cache's directory, beside its key.
const (
	codeSuffix   = ".code"
	sealSuffix   = ".seal"
	compilingDir = "compiling" // staging directories of compile children
	asideDir     = "aside"     // what did not match its MAC
)

// Bounds of a cache.
const (
	// MinCacheBytes is the least that a cache may be given.
	MinCacheBytes = 16 << 20
	// maxAside bounds the files that are set aside.
	maxAside = 4
	// maxTooLarge bounds the modules that are known not to fit.
	maxTooLarge = 256
)

// OpenCache opens the cache in dir, which is made if needed and used for
// nothing else, and keeps it within maxBytes, at least MinCacheBytes. The logger
// gets what was set aside; nil discards it.
func OpenCache(dir string, maxBytes int64, logger *slog.Logger) (*Cache, error) {
	if maxBytes < MinCacheBytes {
		return nil, fmt.Errorf("compile cache: %d bytes, at least %d", maxBytes, MinCacheBytes)
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	c := &Cache{
		dir: dir, max: maxBytes, logger: logger, entries: make(map[codeKey]*list.Element), order: list.New(),
		compiling: make(map[codeKey]*compilation), tooLarge: make(map[codeKey]bool),
	}
	err := os.RemoveAll(filepath.Join(dir, compilingDir))
	for _, sub := range []string{compilingDir, asideDir} {
		err = errors.Join(err, os.MkdirAll(filepath.Join(dir, sub), 0o700))
	}
	if err == nil {
		c.secret, err = codeSecret(dir)
	}
	if err == nil {
		err = c.scan()
	}
	if err != nil {
		return nil, fmt.Errorf("compile cache: %w", err)
	}
	return c, nil
}

// scan learns what is there, oldest first, and removes what has no seal.
func (c *Cache) scan() error {
	files, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	type found struct {
		codeEntry
		used time.Time
	}
	var all []found
	for _, f := range files {
		name := f.Name()
		base, isCode := strings.CutSuffix(name, codeSuffix)
		key, ok := parseCodeKey(strings.TrimSuffix(base, sealSuffix))
		info, err := f.Info()
		switch {
		case !ok || err != nil: // the key, a directory, or somebody else's
		case !isCode:
			if _, err := os.Stat(c.path(key, codeSuffix)); err != nil {
				os.Remove(c.path(key, sealSuffix))
			}
		default:
			if _, err := os.Stat(c.path(key, sealSuffix)); err != nil {
				os.Remove(c.path(key, codeSuffix))
				continue
			}
			all = append(all, found{codeEntry{key, info.Size()}, info.ModTime()})
		}
		if strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".tmp") {
			os.Remove(filepath.Join(c.dir, name))
		}
	}
	slices.SortFunc(all, func(a, b found) int { return a.used.Compare(b.used) })
	for _, f := range all {
		c.insert(f.codeEntry)
	}
	c.shrink()
	return nil
}

func parseCodeKey(name string) (key codeKey, ok bool) {
	if len(name) != 2*len(key) {
		return key, false
	}
	_, err := hex.Decode(key[:], []byte(name))
	return key, err == nil
}

func (c *Cache) path(key codeKey, suffix string) string {
	return filepath.Join(c.dir, key.String()+suffix)
}

// insert makes an entry the newest; c.mu is held, or c is new.
func (c *Cache) insert(e codeEntry) {
	c.entries[e.key] = c.order.PushFront(&e)
	c.used += e.size
}

// shrink removes what was used least recently until the rest fits; c.mu is held,
// or c is new.
func (c *Cache) shrink() {
	for c.used > c.max {
		c.forget(c.order.Back().Value.(*codeEntry))
	}
}

// forget removes an entry, the seal first: code without a seal is nothing.
func (c *Cache) forget(e *codeEntry) {
	os.Remove(c.path(e.key, sealSuffix))
	os.Remove(c.path(e.key, codeSuffix))
	c.order.Remove(c.entries[e.key])
	delete(c.entries, e.key)
	c.used -= e.size
}

// Counts returns what happened since OpenCache.
func (c *Cache) Counts() CacheCounts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts
}

// stage gives the child whose staging directory is dir the code named key; false
// when there is none that can be trusted.
func (c *Cache) stage(key codeKey, dir string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	element := c.entries[key]
	if element == nil {
		return false
	}
	e := element.Value.(*codeEntry)
	place, err := c.verify(key)
	if err == nil {
		target := filepath.Join(dir, codeDir, place[0])
		if err = os.Mkdir(target, 0o700); err == nil {
			err = share(c.path(key, codeSuffix), filepath.Join(target, place[1]))
		}
		if err != nil {
			c.logger.Warn("compiled code is there but a sandbox cannot have it", "err", err)
			return false
		}
	}
	if err != nil {
		c.setAside(e, err)
		return false
	}
	c.order.MoveToFront(element)
	now := time.Now()
	os.Chtimes(c.path(key, codeSuffix), now, now) // the order after a restart
	c.counts.Hits++
	return true
}

// verify compares code with its seal and returns its place; c.mu is held.
func (c *Cache) verify(key codeKey) (place [2]string, err error) {
	b, err := os.ReadFile(c.path(key, sealSuffix))
	if err != nil {
		return place, err
	}
	if len(b) > maxSealBytes {
		return place, errors.New("seal too long")
	}
	seal, err := parseSeal(b)
	if err != nil {
		return place, err
	}
	f, err := os.Open(c.path(key, codeSuffix))
	if err != nil {
		return place, err
	}
	defer f.Close()
	mac := codeMAC(c.secret, key, seal.Place)
	if err := hashFile(mac, nil, f, seal.Size); err != nil {
		return place, err
	}
	if !bytes.Equal(mac.Sum(nil), seal.MAC[:]) {
		return place, errors.New("it is not what was stored")
	}
	return seal.Place, nil
}

// setAside keeps code that does not match for whoever wants to know why, and
// forgets it; c.mu is held.
func (c *Cache) setAside(e *codeEntry, why error) {
	c.logger.Warn("compiled code on disk was changed; it is set aside and compiled again", "code", e.key.String(), "err", why)
	c.counts.SetAside++
	dir := filepath.Join(c.dir, asideDir)
	if list, err := os.ReadDir(dir); err == nil && len(list) >= maxAside {
		os.Remove(filepath.Join(dir, list[0].Name()))
	}
	c.number++
	os.Rename(c.path(e.key, codeSuffix), filepath.Join(dir, fmt.Sprintf("%d-%d", time.Now().UnixNano(), c.number)))
	c.forget(e)
}

// keep stores what a compile child left in dir; false when it does not fit.
func (c *Cache) keep(key codeKey, dir string) (bool, error) {
	source, place, size, err := producedCode(dir)
	if err != nil {
		return false, fmt.Errorf("compiled code: %w", err)
	}
	defer source.Close()
	if size > c.max {
		return false, nil
	}
	temp, err := os.CreateTemp(c.dir, ".*.tmp")
	if err != nil {
		return false, err
	}
	defer os.Remove(temp.Name())
	// A copy: the child may still hold its own file open.
	mac := codeMAC(c.secret, key, place)
	err = errors.Join(hashFile(mac, temp, source, size), temp.Chmod(0o400), temp.Close())
	if err != nil {
		return false, err
	}
	seal := codeSeal{Size: size, MAC: [32]byte(mac.Sum(nil)), Place: place}
	c.mu.Lock()
	defer c.mu.Unlock()
	if element := c.entries[key]; element != nil {
		c.forget(element.Value.(*codeEntry))
	}
	if err := os.Rename(temp.Name(), c.path(key, codeSuffix)); err != nil {
		return false, err
	}
	if err := disk.WriteFile(c.path(key, sealSuffix), seal.append(nil), 0o600); err != nil {
		os.Remove(c.path(key, codeSuffix))
		return false, err
	}
	c.insert(codeEntry{key, size})
	c.shrink()
	c.counts.Compiled++
	return c.entries[key] != nil, nil
}

// compilation is one module being compiled for all who want it.
type compilation struct {
	done  chan struct{}
	fault error // of the module: for all
}

// fill has module compiled by compile, once for all who ask at the same time, and
// stores the code. It returns false when there is no code to be had that way, and
// an error when the module is at fault or ctx ended.
func (c *Cache) fill(ctx context.Context, key codeKey, compile func(dir string) error) (bool, error) {
	c.mu.Lock()
	if c.tooLarge[key] {
		c.mu.Unlock()
		return false, nil
	}
	if other := c.compiling[key]; other != nil {
		c.mu.Unlock()
		select {
		case <-other.done:
			return true, other.fault // look again
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	mine := &compilation{done: make(chan struct{})}
	c.compiling[key] = mine
	c.number++
	dir := filepath.Join(c.dir, compilingDir, fmt.Sprint(c.number))
	c.mu.Unlock()
	kept, err := c.compileInto(key, dir, compile)
	if _, ok := errors.AsType[*ModuleError](err); ok {
		mine.fault = err
	}
	c.mu.Lock()
	delete(c.compiling, key)
	if err == nil && !kept {
		if len(c.tooLarge) >= maxTooLarge {
			clear(c.tooLarge)
		}
		c.tooLarge[key] = true
	}
	c.mu.Unlock()
	close(mine.done)
	return kept, err
}

func (c *Cache) compileInto(key codeKey, dir string, compile func(dir string) error) (bool, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	if err := compile(dir); err != nil {
		return false, err
	}
	return c.keep(key, dir)
}
