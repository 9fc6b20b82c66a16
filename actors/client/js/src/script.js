/** The build for a plain `<script>`: everything is a property of `Heliograph`. */
import { Connection, SignalClient, SignalError, Subscription, afterClose, all, any, backoffMs, f, not } from "./index.js";

globalThis.Heliograph = { Connection, SignalClient, SignalError, Subscription, afterClose, all, any, backoffMs, f, not };
