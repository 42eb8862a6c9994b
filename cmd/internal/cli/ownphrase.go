package cli

import (
	"context"
	"crypto/ed25519"
	"fmt"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/node"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage"
	"gotong/storage/seal"
)

// ownPhrase is the recovery phrase of this peer's owner, proved to be that, with
// the secrets of this peer's vault that follow from it.
type ownPhrase struct {
	self    *controlv1.SelfResponse
	phrase  identity.Phrase
	secrets seal.VaultSecrets
}

// provePhrase reads the phrase, from --phrase-file or the terminal, and compares
// its owner with that of the peer. The phrase does not leave this process.
func (a *app) provePhrase(ctx context.Context, peer controlv1.ControlClient) (ownPhrase, error) {
	self, err := peer.Self(ctx, &controlv1.SelfRequest{})
	if err != nil {
		return ownPhrase{}, err
	}
	text, err := a.readPhrase(a.phraseFile)
	if err != nil {
		return ownPhrase{}, err
	}
	wrong := &failure{code: exitWrongPhrase, meaning: "nothing was changed", next: "compare each word with the paper"}
	phrase, err := identity.ParsePhrase(text)
	if err != nil {
		wrong.what, wrong.cause = fmt.Sprintf("recovery phrase: %v", err), err
		return ownPhrase{}, wrong
	}
	owner := grid.OwnerIDOf(phrase.OwnerKey().Public().(ed25519.PublicKey))
	if owner.String() != self.Owner {
		wrong.what = fmt.Sprintf("this is the recovery phrase of another owner (%s, not %.8s)", owner.Short(), self.Owner)
		return ownPhrase{}, wrong
	}
	vault, err := storage.ParseVaultID(self.Vault)
	if err != nil {
		return ownPhrase{}, err
	}
	secrets, err := seal.DeriveVault(phrase.Entropy(), vault)
	return ownPhrase{self, phrase, secrets}, err
}

// withReadKey returns a context whose calls carry the vault's read key, which
// follows from the phrase.
func (a *app) withReadKey(ctx context.Context, peer controlv1.ControlClient) (context.Context, error) {
	own, err := a.provePhrase(ctx, peer)
	if err != nil {
		return nil, err
	}
	key := own.secrets.ReadKey()
	defer clear(key)
	return node.WithReadKey(ctx, key), nil
}
