;; A module that wants a host function which tasks do not have.
(module
  (import "env" "fork" (func (result i32)))
  (func (export "_start")))
