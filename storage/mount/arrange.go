package mount

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage/vault"
)

// The top directory:
//
//	ids/ID           each snapshot
//	snapshots/TIME   links to them; latest is the newest
//	hosts/HOST/TIME  the same by host, and by set and tag
const (
	dirIDs       = "ids"
	dirSnapshots = "snapshots"
	dirHosts     = "hosts"
	dirSets      = "sets"
	dirTags      = "tags"
	linkLatest   = "latest"
)

// arrange makes the directories around the snapshots.
func (t *Tree) arrange(list []vault.Snapshot) *Node {
	top := t.ownDir("", 1)
	ids := top.addDir(dirIDs)
	byTime := top.addDir(dirSnapshots)
	groups := map[string]*Node{}
	for _, dir := range []string{dirHosts, dirSets, dirTags} {
		groups[dir] = top.addDir(dir)
	}
	short := shortIDs(list)
	times := timeNames(list)
	for i, s := range list {
		ids.children = append(ids.children, t.rootOf(short[i], t.hash(ids.inode, short[i]), s))
		byTime.addLink(times[i], "../"+dirIDs+"/"+short[i], s.Created)
		in := func(dir, name string) {
			if name = safeName(name); name == "" {
				return
			}
			group := groups[dir].find(name)
			if group == nil {
				group = groups[dir].addDir(name)
			}
			group.addLink(times[i], "../../"+dirIDs+"/"+short[i], s.Created)
			group.addLink(linkLatest, times[i], s.Created)
		}
		in(dirHosts, s.Host)
		in(dirSets, s.Set)
		for _, tag := range s.Tags {
			in(dirTags, tag)
		}
	}
	if n := len(list); n > 0 {
		byTime.addLink(linkLatest, times[n-1], list[n-1].Created)
		top.addLink(linkLatest, dirIDs+"/"+short[n-1], list[n-1].Created)
	}
	top.sort()
	return top
}

// shortIDs returns the first digits of each id, more when 12 do not tell them
// apart.
func shortIDs(list []vault.Snapshot) []string {
	out, seen := make([]string, len(list)), map[string]bool{}
	for i, s := range list {
		if out[i] = s.ID.Short(); seen[out[i]] {
			out[i] = s.ID.String()
		}
		seen[out[i]] = true
	}
	return out
}

// timeNames names each snapshot by its time, local with its offset; those of one
// second get a number.
func timeNames(list []vault.Snapshot) []string {
	out, seen := make([]string, len(list)), map[string]int{}
	for i, s := range list {
		name := s.Created.Local().Format(time.RFC3339)
		if seen[name]++; seen[name] > 1 {
			name = fmt.Sprintf("%s-%d", name, seen[name])
		}
		out[i] = name
	}
	return out
}

// safeName makes one path element of a host, set or tag.
func safeName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r == '/' || r == 0 {
			return '_'
		}
		return r
	}, name)
	if name == "." || name == ".." || name == linkLatest {
		return "_" + name
	}
	const longest = 255
	return name[:min(len(name), longest)]
}

func (t *Tree) ownDir(name string, inode uint64) *Node {
	return &Node{tree: t, name: name, inode: inode, own: true, entry: &vaultv1.Node{
		Type: vaultv1.Node_DIRECTORY, Mode: 0o755, Mtime: t.began.Unix(),
	}}
}

func (n *Node) find(name string) *Node {
	i := slices.IndexFunc(n.children, func(c *Node) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return n.children[i]
}

func (n *Node) addDir(name string) *Node {
	dir := n.tree.ownDir(name, n.tree.hash(n.inode, name))
	n.children = append(n.children, dir)
	return dir
}

// addLink adds a symbolic link or replaces the one of that name.
func (n *Node) addLink(name, target string, at time.Time) {
	if old := n.find(name); old != nil {
		n.children = slices.DeleteFunc(n.children, func(c *Node) bool { return c == old })
	}
	n.children = append(n.children, &Node{
		tree: n.tree, name: name, inode: n.tree.hash(n.inode, name+"\x00"+target), own: true,
		entry: &vaultv1.Node{Type: vaultv1.Node_SYMLINK, Mode: 0o777, Target: []byte(target), Mtime: at.Unix(), MtimeNanos: uint32(at.Nanosecond())},
	})
}

func (n *Node) sort() {
	slices.SortFunc(n.children, func(a, b *Node) int { return cmp.Compare(a.name, b.name) })
	for _, c := range n.children {
		c.sort()
	}
}
