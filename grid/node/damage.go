package node

import (
	"errors"
	"io/fs"

	"gotong/grid/identity"
	"gotong/grid/roster"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage"
	"gotong/storage/vault"
)

// unreadable says what it means for a home that a file of it is missing or
// damaged, and what to do; other errors stay as they are.
func (s state) unreadable(path string, err error) error {
	damaged := false
	for _, is := range []error{fs.ErrNotExist, identity.ErrKeyFile, roster.ErrCorrupt, roster.ErrStatement, roster.ErrNoGenesis, storage.ErrCorrupt, vault.ErrNoVault} {
		damaged = damaged || errors.Is(err, is)
	}
	if path == s.invites() { // whatever it is: nothing else hangs on them
		damaged = err != nil
	}
	if !damaged {
		return err
	}
	f := &Failure{Kind: controlv1.Kind_KIND_CORRUPT, What: "a file of this home is missing or damaged: " + path, Err: err}
	switch path {
	case s.records():
		f.Meaning = "nothing is lost: it says where others are, and they tell it again"
		f.Next = "mv " + path + " " + path + ".bad; then gotong up"
	case s.invites():
		f.Meaning = "codes that gotong invite printed may not work any more; nothing else is lost"
		f.Next = "mv " + path + " " + path + ".bad; then gotong up, and gotong invite again"
	default:
		f.Meaning = "this home cannot be a peer any more; your backups are with friends, and your phrase opens them"
		f.Next = "gotong recover PEERID@HOST:PORT --home NEW --phrase-file FILE; the recovery sheet has a friend's line"
	}
	return f
}
