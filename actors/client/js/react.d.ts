import type { ReactElement, ReactNode } from "react";
import type { Gap, Json, Signal, SignalClient, SignalError, SubscribeOptions, SubscriptionState } from "heliograph-client";

/** Gives `client` to every `useSignals` below. */
export function SignalProvider(props: { client: SignalClient; children?: ReactNode }): ReactElement;

export interface View<Data> {
  /** Default: the provider's. */
  client?: SignalClient;
  /** How many signals, and how many keys of `latest`, are kept; default 100. */
  keep?: number;
  /** What to keep the newest signal of, in `latest`. */
  latestBy?: "entity" | "type" | ((signal: Signal<Data>) => string);
}

export interface Signals<Data> {
  /** The newest last. */
  signals: readonly Signal<Data>[];
  /** The newest signal of each key of `latestBy`, the one that changed last at the end. */
  latest: ReadonlyMap<string, Signal<Data>>;
  state: SubscriptionState;
  /** The last gap. */
  gap: Gap | null;
  /** Why it failed. */
  error: SignalError | null;
}

/**
 * What a subscription has brought, drawn at most once per animation frame. Components that ask for the same share one
 * subscription, which ends 250 ms after the last of them.
 */
export function useSignals<Data = Json>(options?: SubscribeOptions, view?: View<Data>): Signals<Data>;
