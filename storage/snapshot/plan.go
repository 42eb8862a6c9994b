package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
	"gotong/storage/seal"
	"gotong/storage/vault"
)

// destPlace is where the plan is: a directory that may have to be made.
type destPlace struct {
	dir      *destDir
	rel      string // its path below what is restored, with a slash behind; "" at the top
	included bool   // with all below
	depth    int
}

// plan walks from the node that was asked for: the entries of a directory, or
// the one entry, go into the target, which was made or is where the directory
// itself was.
func (r *restore) plan(node *vaultv1.Node, made, itself bool) {
	top := newTopDir(r, r.top, made)
	defer top.done()
	at := destPlace{dir: top, included: len(r.options.Include) == 0}
	if node.Type != vaultv1.Node_DIRECTORY {
		r.entry(at, node)
		return
	}
	if len(node.Name) > 0 && at.included && (made || itself && r.options.Overwrite == OverwriteAny) {
		top.node = node // the target is this directory, so it gets its mode and times
	}
	r.directory(at, node)
}

// directory plans all entries of a listing.
func (r *restore) directory(at destPlace, node *vaultv1.Node) {
	err := error(nil)
	if at.depth > maxDepth {
		err = fmt.Errorf("more than %d directories inside each other", maxDepth)
	}
	var extra extras
	if err == nil {
		extra, err = r.extrasOf(at, node)
	}
	if err == nil {
		err = Entries(r.reader, node, func(n *vaultv1.Node) error {
			if r.ctx.Err() != nil {
				return r.ctx.Err()
			}
			extra.met(string(n.Name))
			r.entry(at, n)
			return nil
		})
	}
	if err != nil {
		r.skip(at.dir.path, fmt.Errorf("listing: %w", err))
		return
	}
	r.removeExtras(at, extra)
}

// chosen reports whether an entry is wanted, given whether its directory is, and
// whether it or anything below is.
func (r *restore) chosen(rel string, isDir, included bool) (itself, some bool) {
	if r.exclude.ignores(nil, rel, isDir) {
		return false, false
	}
	if !included {
		included, _ = r.include.options.decide(rel, isDir)
	}
	return included, included || isDir && r.include.options.mayDecideBelow(rel+"/")
}

// count returns what a restore of node is about to do, which the record of a
// snapshot says of all of it only. Files with more than one name count once.
func (r *restore) count(node *vaultv1.Node) (total Progress, err error) {
	linked := map[linkKey]bool{}
	var below func(dir *vaultv1.Node, rel string, included bool, depth int) error
	entry := func(n *vaultv1.Node, rel string, included bool, depth int) error {
		rel += string(n.Name)
		included, some := r.chosen(rel, isDir(n), included)
		switch {
		case some && isDir(n):
			return below(n, rel+"/", included, depth+1)
		case !included || n.Type != vaultv1.Node_FILE || n.Link != nil && linked[keyOf(n.Link)]:
			return nil
		case n.Link != nil:
			linked[keyOf(n.Link)] = true
		}
		total.TotalFiles++
		total.TotalBytes += n.GetContent().GetSize()
		return nil
	}
	below = func(dir *vaultv1.Node, rel string, included bool, depth int) error {
		if depth > maxDepth {
			return nil // nothing below is restored
		}
		return Entries(r.reader, dir, func(n *vaultv1.Node) error {
			if r.ctx.Err() != nil {
				return r.ctx.Err()
			}
			return entry(n, rel, included, depth)
		})
	}
	included := len(r.options.Include) == 0
	if isDir(node) {
		return total, below(node, "", included, 0)
	}
	return total, entry(node, "", included, 0)
}

// entry plans one entry of a directory, if it is wanted.
func (r *restore) entry(at destPlace, node *vaultv1.Node) {
	name, isDir := string(node.Name), node.Type == vaultv1.Node_DIRECTORY
	rel, some := at.rel+name, false
	if at.included, some = r.chosen(rel, isDir, at.included); !some {
		return
	}
	err := checkLocalName(name)
	if err == nil && !isDir {
		err = at.dir.open()
	}
	if err == nil {
		err = at.dir.claim(name)
	}
	if err == nil {
		switch node.Type {
		case vaultv1.Node_DIRECTORY:
			err = r.subdirectory(at, rel, node)
		case vaultv1.Node_FILE:
			err = r.file(at.dir, rel, node)
		case vaultv1.Node_SYMLINK, vaultv1.Node_FIFO, vaultv1.Node_CHARACTER_DEVICE, vaultv1.Node_BLOCK_DEVICE:
			err = r.special(at.dir, rel, node)
		default:
			err = fmt.Errorf("entry of unknown type %d", node.Type)
		}
	}
	if err != nil {
		r.leaveOut(at.dir.join(node), err)
	}
}

// subdirectory plans a directory. One that is not wanted itself is made when
// something below is.
func (r *restore) subdirectory(at destPlace, rel string, node *vaultv1.Node) error {
	child := at.dir.child(node, at.included)
	defer child.done()
	if at.included {
		if err := child.open(); err != nil {
			return err
		}
	}
	r.directory(destPlace{child, rel + "/", at.included, at.depth + 1}, node)
	return nil
}

// errInTheWay says that an entry cannot have its name.
var errInTheWay = errors.New("a directory has this name in the target")

// makeWay looks up what has the name of an entry in the target. A directory is
// removed, or is an error.
func (r *restore) makeWay(dir *destDir, rel string, node *vaultv1.Node) (m meta, there bool, err error) {
	m, there, err = dir.lookup(string(node.Name))
	if err != nil || !there || m.kind != vaultv1.Node_DIRECTORY {
		return m, there, err
	}
	if !r.options.Delete {
		return m, true, errInTheWay
	}
	return meta{}, false, r.remove(dir, string(node.Name), rel)
}

// keeps reports whether an entry of the target stays as it is though it may
// differ.
func (r *restore) keeps(m meta, node *vaultv1.Node) bool {
	switch r.options.Overwrite {
	case OverwriteNone:
		return true
	case OverwriteOlder:
		return m.mtime > node.Mtime || m.mtime == node.Mtime && m.mtimeNanos > int64(node.MtimeNanos)
	}
	return false
}

// piece is one blob of a file on its way to the disk: from the vault, or from
// the file that had the name before. A file without content is one piece
// without either.
type piece struct {
	file   *destFile
	lease  *vault.Lease
	hash   [32]byte // of a piece of the old file
	old    bool
	size   uint64
	offset uint64 // in the content
}

// file plans a regular file.
func (r *restore) file(dir *destDir, rel string, node *vaultv1.Node) error {
	have, there, err := r.makeWay(dir, rel, node)
	if err != nil {
		return err
	}
	if there && r.keeps(have, node) {
		r.did(ActionKept, dir.join(node))
		if group := r.links[linkOf(node)]; group == nil {
			r.link(dir, node, false)
			r.linkEnds(node, errKept)
		}
		return nil
	}
	if r.link(dir, node, there) {
		return nil
	}
	found := comparison{}
	if there {
		found = r.compare(dir, node, have)
	}
	if found.all() {
		r.keepContent(dir, node, have)
		return nil
	}
	action := ActionNew
	if there {
		action = ActionReplaced
	}
	if r.options.DryRun {
		r.files.Add(1)
		r.bytes.Add(node.Size)
		r.found.Add(found.bytes)
		r.fetched.Add(node.Content.GetSize() - found.bytes)
		r.did(action, dir.join(node))
		r.linkEnds(node, nil)
		return nil
	}
	r.content(newDestFile(r, dir, node, action), found)
	return nil
}

// errKept says why a further name of a file cannot be linked to it.
var errKept = errors.New("the file was kept as it is in the target")

// content plans the pieces of a file.
func (r *restore) content(f *destFile, found comparison) {
	defer f.done()
	ref, err := vault.RefOf(f.node.Content)
	if err == nil && ref.Size == 0 {
		err = r.send(piece{file: f})
	} else if err == nil {
		offset, i := uint64(0), 0
		err = r.reader.Leaves(ref, func(leaf vault.Ref) error {
			if f.failed() {
				return errGivenUp
			}
			p := piece{file: f, hash: leaf.Hash, old: found.has(i), size: leaf.Size, offset: offset}
			if !p.old {
				lease, err := r.reader.Lease(leaf.Hash)
				if err != nil {
					return err
				}
				p.lease = lease
			}
			offset += leaf.Size
			i++
			return r.send(p)
		})
	}
	if err != nil {
		f.fail(err)
	}
}

// errGivenUp stops the planning of a file that failed while it was written.
var errGivenUp = errors.New("given up")

// send hands a piece to the writers.
func (r *restore) send(p piece) error {
	p.file.pending.Add(1)
	select {
	case r.pieces <- p:
		return nil
	case <-r.ctx.Done():
		p.drop()
		return r.ctx.Err()
	}
}

// drop gives up a piece that was not written.
func (p piece) drop() {
	if p.lease != nil {
		p.lease.Release()
	}
	p.file.done()
}

// write writes pieces until the plan ends.
func (r *restore) write() {
	var plain, buf []byte
	for p := range r.pieces {
		if r.ctx.Err() != nil {
			p.file.fail(r.ctx.Err())
		}
		if !p.file.failed() {
			var err error
			if plain, buf, err = r.writePiece(p, plain, buf); err != nil {
				p.file.fail(err)
			}
		}
		p.drop()
	}
}

func (r *restore) writePiece(p piece, plain, buf []byte) ([]byte, []byte, error) {
	out, err := p.file.open()
	if err != nil || p.lease == nil && !p.old {
		return plain, buf, err
	}
	if p.old {
		if plain, err = p.file.readOld(plain[:0], p); err == nil {
			err = p.file.writeAt(out, plain, p.offset)
		}
		if err == nil {
			r.found.Add(p.size)
		}
		return plain, buf, err
	}
	got, buf, err := p.lease.Read(plain[:0], buf)
	if err != nil {
		return plain, buf, err
	}
	if uint64(len(got)) != p.size {
		return got, buf, fmt.Errorf("%w: blob of %d bytes, not %d", storage.ErrCorrupt, len(got), p.size)
	}
	if err := p.file.writeAt(out, got, p.offset); err != nil {
		return got, buf, err
	}
	r.fetched.Add(p.size)
	return got, buf, nil
}

// readOld reads a piece of the file that had the name before, which was right
// when it was compared.
func (f *destFile) readOld(buf []byte, p piece) ([]byte, error) {
	old, err := f.openOld()
	if err != nil {
		return buf, err
	}
	buf = slices.Grow(buf, int(p.size))[:p.size]
	err = eachRun(f.node, p.offset, p.size, func(at, from, to uint64) error {
		_, err := old.ReadAt(buf[from:to], int64(at))
		return err
	})
	if err == nil && seal.Hash(buf) != p.hash {
		err = fmt.Errorf("%w while it was being restored", errOtherFile)
	}
	return buf, err
}

// errOtherFile says that somebody else writes to the target.
var errOtherFile = errors.New("the file in the target was changed")

// special plans a link, fifo or device.
func (r *restore) special(dir *destDir, rel string, node *vaultv1.Node) error {
	have, there, err := r.makeWay(dir, rel, node)
	if err != nil {
		return err
	}
	path := dir.join(node)
	action := ActionNew
	if there {
		switch {
		case r.keeps(have, node):
			r.did(ActionKept, path)
			return nil
		case r.options.Compare != CompareNothing && dir.sameSpecial(have, node):
			r.did(ActionUnchanged, path)
			return nil
		}
		action = ActionReplaced
	}
	if !r.options.DryRun {
		err = dir.special(node)
		if errors.Is(err, errMade) {
			r.skip(path, err)
			err = nil
		}
	}
	if err == nil {
		r.did(action, path)
	}
	return err
}

// foldName is the same for names that many file systems take for the same.
func foldName(name string) string { return strings.ToLower(strings.ToUpper(name)) }
