"""The sentences of the twelve intents, in the notation of grammar.py: one block of lines per leaf of the taxonomy."""
# ruff: noqa: E501 - a line of the grammar is one pattern, however long

PARTS = {
    "howdoi": "(how do I|how do I|how can I|how can I|how should I|how would I|how to|what do I need to do to|what do I have to do to"
    "|what's the way to|what is the process to|tell me how to|I need to know how to|I want to know how to|can you tell me how to"
    "|please explain how to|is there a way to|is it possible to|can I|am I able to|what steps do I take to|where do I go to|I don't know how to|show me how to)",
    "iwant": "(I want to|I want to|I need to|I need to|I'd like to|I would like to|I wish to|I have to|I'm trying to|I am looking to|I'm hoping to"
    "|let me|I've decided to|I think I want to|I really need to)",
    "canyou": "(can you|could you|can you please|could you please|would you|please|I need you to|I want you to|are you able to|will you)",
    "cantdo": "(I can't|I cannot|I'm unable to|I am not able to|why can't I|why am I unable to|why am I not able to|how come I can't|it won't let me"
    "|the app won't let me|I couldn't|I keep trying but can't)",
    "still": "(still|still|yet|as yet|even now)",
    "help": "[ (please help|what should I do|what do I do|what now|can you help|help me|what can I do|any idea why|please advise)]",
    "newcard": "(my card|my card|my new card|the card|the new card|my bank card|my debit card|my replacement card|the card I ordered|my first card|my physical card|the card you sent|a card I ordered)",
    "arrived": "(arrived|come|turned up|shown up|been delivered|got here|reached me|come through the post|come in the mail|landed)",
    "arrive": "(arrive|come|turn up|show up|be delivered|get here|reach me|come in the post|be here|get to me)",
    "mycard": "(my card|my card|my card|my bank card|my debit card|the card)",
    "somewhere": "(on the bus|on the train|in a taxi|at the gym|in a pub|at a cafe|in the park|at work|in town|at the airport|in a shop|somewhere|while shopping|on holiday|in {place}|at {merchant}|on the tube)",
    "block": "(block|freeze|cancel|stop|deactivate|disable|suspend|lock)",
    "thief": "(someone|somebody|a thief|a pickpocket|some guy|a stranger)",
    "wallet": "(wallet|purse|bag|handbag|backpack|rucksack|phone and card|coat with my card in it)",
    "pinchange": "(change my PIN|change my PIN|change my PIN|change my PIN number|change the PIN|change the PIN on my card|update my PIN|reset my PIN to something else|set a new PIN"
    "|choose a new PIN|choose my own PIN|pick a different PIN|get a new PIN|get a different PIN|create a new PIN|alter my PIN|modify my PIN code|change my card's PIN|replace my PIN|make my PIN something else|switch my PIN)",
    "tap": "(contactless|contactless|contactless payment|the contactless|tap to pay|tapping|contactless pay|the tap function)",
    "broken": "(not working|not working|isn't working|doesn't work|won't work|has stopped working|is broken|never works|fails|keeps failing|is not functioning|stopped working|does nothing|no longer works|didn't work|hasn't worked)",
    "shop": "(at the shop|in the shop|at the supermarket|in a restaurant|at the till|online|at a petrol station|in the store|at {merchant}|in {merchant}|on {merchant}|at the pharmacy|for a taxi|at the cafe|for my groceries|at a hotel|for a train ticket|on a website)",
    "declined": "(declined|declined|declined|rejected|refused|denied|turned down|not accepted)",
    "cardpay": "(my card|my card|my card payment|my payment|the payment|my debit card|my purchase|my online payment|a card payment|the transaction)",
    "refund": "(refund|refund|refund|money back|reimbursement)",
    "seller": "(the shop|the store|the merchant|the seller|the retailer|the company|{merchant}|{merchant}|the airline|the hotel|the website)",
    "inacct": "(in my account|on my statement|in my balance|in the app|on my card|to my account|on my account)",
    "transfer": "(transfer|transfer|transfer|bank transfer|money transfer|payment|transaction)",
    "cancel": "(cancel|cancel|cancel|stop|undo|reverse|revert|revoke|recall|take back|call back|call off|abort|halt|void)",
    "made": "(I made|I made|I just made|I sent|I did|I set up|I've just done|I have made|I put through|that I made)",
    "oops": "(to the wrong person|to the wrong account|by mistake|by accident|accidentally|with the wrong account number|with the wrong details|to the wrong sort code|to an old account)",
    "cash": "(cash withdrawal|cash withdrawal|ATM withdrawal|withdrawal|cash machine withdrawal|cashpoint withdrawal|withdrawal from an ATM|withdrawal of cash)",
    "notme": "(I didn't make|I did not make|I never made|I don't recognise|I do not recognize|I didn't do|wasn't me|I haven't made|I know nothing about|isn't mine|I can't explain|I didn't authorise|that I don't remember)",
    "topup": "(top up|top up|top-up|topup|top up payment)",
    "failed": "(failed|failed|didn't work|did not work|was rejected|got rejected|was declined|didn't go through|has not gone through|was cancelled|got cancelled|was unsuccessful|was refused|was denied|hasn't worked|won't go through|isn't working|didn't complete)",
    "rate": "(exchange rate|exchange rate|exchange rate|rate|conversion rate|currency exchange rate|FX rate|rate of exchange|foreign exchange rate)",
    "verifyme": "(verify my identity|verify my identity|verify my identity|verify my ID|verify who I am|prove my identity|prove who I am|confirm my identity|get verified|get my identity verified|pass the identity check|complete the identity check|do the identity verification|complete my verification|verify myself|do the ID check|identify myself|authenticate my identity|verify my account identity|validate my identity)",
    "close": "(close my account|close my account|delete my account|cancel my account|terminate my account|shut down my account|end my account|get rid of my account|deactivate my account|remove my account|close my bank account|close the account|shut my account|close my account down|permanently close my account|discontinue my account|close out my account|erase my account)",
}

SENTENCES = {
    "cards/arrival": """
        (I need|I really need|I could do with) (my card|my new card|the card), (when will it come|where is it|why hasn't it come|how much longer)?
        (any chance|is there any chance|would it be possible) (you can tell me|of knowing|to know|to find out) (where my card is|when my card will come|when my card arrives)?
        (I don't|do not) have my card yet[, it was ordered {ago}| although I ordered it {ago}|, where is it| and it's been {span}]
        (I think|it seems|maybe|I'm afraid|it looks like|I believe) (my card|my new card|the card|it) (got|was|has been|is) lost (in the post|in the mail|on the way|in delivery|in transit)[, can I get another one|, can you send a new one|, what now]?
        (can|could) (my card|it|the card|my card delivery) be (sent faster|speeded up|sent by express|delivered sooner|delivered to work|sent by courier)?
        (is there|can I get|can I pay for) (a faster way to get my card|express delivery of my card|faster delivery for my card|a way to get my card sooner)?
        (do I have to|do I need to|must I) (be home|sign for it|be in) when my card (is delivered|comes|arrives)?
        (you sent|you've sent|you posted|the bank sent|you mailed) my (card|new card) {ago} (but|and) (it's not here|I don't have it|it never got here|nothing has come|it hasn't arrived|I've not received it)
        (how do I get|can I get|please send) (a new card|another card|a replacement) (because|as|if|since) (mine|the first one|the one you sent) (never arrived|didn't arrive|hasn't come|was lost in the post)?
        (was told|I was told|they told me|you told me) (my card|the card|it) would (take|be here in|arrive within|come in) {span} (but|and) (it's been longer|it's still not here|it has not come|I'm still waiting)
        my (card|debit card|bank card|new card) has not (arrived|come|been delivered|been received)[ yet][, why| and I'm worried| and I need it| so I can't pay]<help>
        I (expected|was expecting) my (card|new card) (by now|{ago}|last week|sooner)
        (it's|it is) taking (too long|ages|forever|a long time|longer than expected) (for my card to <arrive>|to get my card|for the card to come)
        what's the (delivery status|shipping status|ETA|arrival date|delivery date) (of|for) my (card|new card)?
        +where is <newcard>?
        where's <newcard> [now|then|got to|at]?
        +<newcard> (hasn't|has not|still hasn't|still has not|hasn't even) <arrived>[ yet]
        <newcard> (hasn't|has not|still hasn't|has still not) <arrived>[ after {span}|, it's been {span}]
        why (hasn't|has) <newcard> (not|still not|yet to be) <arrived>[ yet]?
        +I (haven't|have not|still haven't|still have not|never|didn't) (received|got|get|receive|had) <newcard>[ yet| in the post| in the mail]
        I am still waiting (for|on) <newcard>[ to <arrive>| after {span}]
        I'm [still ]waiting (for|on) <newcard>[, where is it|, how much longer|, it's taking ages|. When will it <arrive>]?
        I('ve| have) been waiting {span} for <newcard>[ and nothing has come| now| to <arrive>]
        I('ve| have) been waiting (forever|ages|a long time|so long|quite a while) for <newcard>
        +when (will|should|is|does|can I expect) <newcard> (arrive|to arrive|going to arrive|get here|come|be here|be delivered|supposed to come|due)?
        when (will|do|can|should) I (get|receive|expect|have) <newcard>?
        how (long|many days|much longer|many weeks) (does it take|will it take|should it take|do I have to wait|is it going to be) (for <newcard> to <arrive>|to get <newcard>|until I get <newcard>|before <newcard> is here)?
        how long does (delivery|shipping|the post|postage) of <newcard> take?
        (can|how do|how can|is there a way to|could) I track <newcard>[ in the post| in the mail| you sent| delivery| on its way]?
        (is there|do you have|can I get|could I have|can you give me) (a tracking number|tracking|a tracking link|tracking information|any tracking info|a delivery date) for <newcard>?
        how do I (find out|know|check|see) (where <newcard> is|when <newcard> will <arrive>|if <newcard> has been sent|the delivery status of <newcard>|the status of <newcard>)?
        (has|did) <newcard> (been sent|been posted|been shipped|been dispatched|been mailed|get sent|get shipped|get lost in the post)[ yet| out]?
        (was|is) <newcard> (sent|shipped|posted|mailed|dispatched|on its way|on the way)[ yet| already| out]?
        I ordered (a card|my card|my new card|a debit card|a replacement card) ({ago}|over {span} ago|ages ago|a while ago|some time ago) and it (hasn't <arrived>|still isn't here|is not here|never came|hasn't come yet)
        it('s| has) been {span} (and|since I ordered and|but) [still ]no (card|sign of my card|sign of the card|new card)
        {span} (and|later and|have passed and) [still ]no card[ in the post]?
        is it normal (that my card takes|for a card to take|to wait|for my card to take) (so long|this long|more than {span}|over {span}|{span})[ for a card| to <arrive>]?
        (shouldn't|should) <newcard> (have <arrived>|be here) by now?
        <newcard> should have <arrived> (by now|already|{ago}|last week)[, where is it?| but it hasn't]
        (I think|is it possible|I'm worried|could it be that|I'm afraid) <newcard> (is lost in the post|got lost in the mail|was lost in the post|went missing in the post|has gone missing in the mail)?
        what (do I do|should I do|can I do|happens) if <newcard> (doesn't <arrive>|hasn't <arrived>|has not <arrived>|never comes|is late|never <arrive>s|is lost in the mail)?
        what do I do if I (haven't received|still haven't got|did not receive|don't get) <newcard>[ after {span}]?
        (what's|what is) (the status of <newcard>|happening with <newcard>|taking so long with <newcard>|taking <newcard> so long|going on with <newcard>|the hold up with <newcard>|the delivery time for <newcard>)?
        (can|could) you (check|tell me|look into|find out|let me know|see) (where <newcard> is|when <newcard> will <arrive>|why <newcard> hasn't <arrived>|the status of my card delivery|what happened to <newcard>)?
        <newcard> (is late|is taking too long|is very late|is overdue|is taking ages|never came|never arrived|never showed up|is nowhere to be seen)
        my card (was supposed to|should|was meant to|was going to|was due to) <arrive> (yesterday|last week|{ago}|by now|days ago)[ but it did not| and I have nothing]
        (still no|no|no sign of|any news on|any update on|any news about) <newcard>[ yet]?
        I (need|want) to (know|track|find out|check) (where <newcard> is|when <newcard> will <arrive>|what happened to <newcard>|the progress of <newcard>)
        (my|the) card delivery (is late|hasn't arrived|hasn't come|is taking forever|is delayed|is taking too long), (why|when will it come|where is it|what's going on)?
        is there (a delay|a problem|an issue) with (sending|posting|card delivery|delivering|the delivery of) (my card|cards|new cards)?
        how will I know when <newcard> (is coming|has been sent|is on its way|will <arrive>)?
        do (cards|new cards) (usually|normally|always) take (this long|so long|{span}|more than a week) to <arrive>?
        what is the (delivery time|usual delivery time|expected delivery|wait|waiting time|estimated delivery) (for|of) (a|my|the|a new) [new ]card?
        I (applied for|opened) (a card|my account|an account) {ago}, when will (my card|the card) <arrive>?
        (the post|the postman|the mail) (has been|came|has come) (but|and) (there was no|still no|without my) card
        ~nothing in my letterbox from you[ yet| again| today], and I ordered {ago}
        ~I keep checking my letterbox but the card isn't there
        ~you said my card would be here {ago}
        ~the app says my card was sent[ {ago}] but I have nothing
        ~I moved house and now I wonder whether <newcard> went to my old address
        ~I can't pay for anything because <newcard> is not here yet
        can you tell me (where|when) my card (is|will come|is coming)[ please]?
        my card hasn't (come|arrived)[ yet][, is it lost][, where is it][, should I be worried]?
        (is|are) (my|the) (card|new card) (coming|arriving) (soon|this week|any time soon|or not)?
        who (delivers my cards|do I contact about my card delivery|do I ask about a card that hasn't arrived|do I contact about a new card that is missing in the post)?
    """,
    "cards/lost": """
        I (can't seem to|don't seem to|can not) (find|locate|see) <mycard>[ anywhere| since {ago}]<help>
        (how can I|how do I) (keep|stop|prevent) (others|people|someone|anyone) (from using|using) my (lost card|missing card|card that I lost)?
        (am|will) I (be |)(charged|responsible|liable|lose money) if (someone|somebody) uses my lost card?
        (if|when) (a|my) card (is|gets) (lost|misplaced), (what do I do|who do I call|what should I do|what happens|how do I block it)?
        I need to (block|freeze|cancel|deactivate) (my|a) (lost|missing|misplaced) card[ now| quickly| right away]
        I (want|need|would like) to <block> my card (because|as|since) (I lost it|I can't find it|it is lost|I left it <somewhere>|I dropped it)
        +I['ve| have] lost <mycard>[ <somewhere>| {ago}]<help>
        I lost <mycard>[ and need to <block> it|, what do I do|. Can you help|, please <block> it]?
        +I (can't|cannot|can no longer|am unable to|don't seem to be able to) find <mycard>[ anywhere]<help>
        I('ve| have) (misplaced|mislaid|dropped) <mycard>[ <somewhere>][, can you <block> it]?
        I (think|believe|am pretty sure|am afraid|might have|guess) I['ve| have] (lost|dropped|misplaced|left) <mycard> <somewhere>
        I left <mycard> <somewhere>[ and it's gone| and can't get it back|, please <block> it]
        <mycard> (is|has been|got|went|has gone) (lost|missing)[, what do I do|, what now|, please help|, can you <block> it]?
        <mycard> (is missing|has gone missing|has disappeared|disappeared|went missing|is gone)[ since {ago}]<help>
        (what|what do I do|what should I do|what happens|what are the steps) (if|when) I['ve| have] (lost|lose|misplaced) <mycard>?
        +<howdoi> report (a lost card|my card lost|my card as lost|my card missing|a missing card|my lost card)?
        I (want|need|would like) to report (a lost card|my card lost|my card as missing|that I lost my card|a lost bank card)
        <canyou> <block> <mycard>, I['ve| have] (lost it|misplaced it|can't find it|dropped it <somewhere>)
        <howdoi> <block> (a lost card|my lost card|a card I lost|a card that I can't find|a missing card)?
        (lost|I lost) my card, (please|how do I|can you) (<block> it|get a new one|get a replacement|replace it)
        <howdoi> (replace|get a replacement for|get a new card for|order a replacement for) (a lost card|my lost card|a card I've lost|the card that I lost)?
        I need (a new card|a replacement|a replacement card) because (I lost mine|I lost my card|mine is lost|my old one is lost|I can't find mine)
        what do I do about (a|my) (lost|missing|misplaced) card?
        (help|help me|please help|urgent|emergency)[,] I['ve| have] lost (my card|my wallet|my purse|my bank card)
        (my wallet is gone|I lost my wallet|I've lost my purse|my wallet is missing|I left my wallet <somewhere>)[ and my card was in it| with my card inside| including my card], (what should I do|please <block> my card|can you help|what now)
        I (have|had) (no idea|not a clue|no clue) where <mycard> is[, it has been {span}|, can you <block> it]
        I (seem to have|must have|may have|might have|could have) (lost|misplaced|dropped|left behind) <mycard>[ <somewhere>]
        somewhere (between|on the way from) (home|work|the shop|the station) (and|to) (home|work|the shop|the station) I (lost|dropped) <mycard>
        my card (fell out of my pocket|fell out of my bag|slipped out of my wallet)[ <somewhere>][ and I can't find it]
        who do I (call|contact|tell|talk to) (about|to report|if I have) a lost card?
        my card is lost[, what are my options|, how do I get another|, is my money safe|, can someone use it]?
        can (someone|anybody|anyone) use my (lost|missing) card?
        I've looked everywhere (for|but can't find) <mycard>
        ~I was out <somewhere> and now <mycard> isn't in my pocket
        ~I went to pay[ at {merchant}] and <mycard> wasn't in my wallet
        ~turned the whole house upside down, <mycard> is not here
        ~haven't seen <mycard> since {ago}
        ~I might have thrown <mycard> away by accident
        can I (freeze|block|lock) <mycard> (until I find it|while I look for it|in case I find it|temporarily, I can't find it)?
        my (card|debit card) has been lost[, what is the next step|. What should I do next]?
        I lost <mycard>, how (long does it take to|can I|do I) get (a new one|a replacement)?
    """,
    "cards/stolen": """
        (someone|somebody|I think someone|I think somebody) (may|might|could|must) have (stolen|taken|got hold of|pinched) my card<help>
        I('ve| have) been (a victim of theft|robbed|mugged|pickpocketed)[, what about my card| and need my card <block>ed|, please <block> my card]
        I (want|need|would like) to <block> my card (because|as|since) (it was stolen|someone stole it|I was robbed|it has been stolen|a thief has it)
        +<mycard> (was|has been|got|is|has just been) stolen[ {ago}| <somewhere>]<help>
        +<thief> (stole|has stolen|took|has taken|just stole|nicked|robbed me of|ran off with) (my card|my card|my bank card|my wallet|my <wallet>)[ <somewhere>| {ago}]<help>
        my <wallet> (was|has been|got) (stolen|snatched|nicked|taken)[ {ago}| <somewhere>][ with my card| and my card was inside| including my card]<help>
        I (was|have been|got|just got) (robbed|mugged|pickpocketed)[ <somewhere>| {ago}][ and they took my card| and my card is gone| and lost my card]<help>
        (they|thieves|burglars|some kids) (took|stole|got) my (card|bank card|wallet and cards)[ {ago}][, please <block> it]
        <howdoi> report (a stolen card|my card stolen|my card as stolen|that my card was stolen|a card theft)?
        I (want|need|would like) to report (a stolen card|my card stolen|my card as stolen|that my card was stolen)
        <canyou> <block> <mycard>, it (was|has been|got) stolen
        <howdoi> <block> (a stolen card|my stolen card|a card that was stolen)?
        my card (was|has been) stolen, (how do I|can you|please|I need to) (<block> it|get a new one|get a replacement|replace it)
        (what|what do I do|what should I do|what happens|what can I do) (if|when|now that) (my card is stolen|my card was stolen|my card has been stolen|someone steals my card)?
        (help|please help|urgent|emergency)[,] (my card was stolen|my card has been stolen|someone stole my card|my purse got stolen)
        I (think|believe|am afraid|suspect) <mycard> (was stolen|has been stolen|got stolen)[ <somewhere>]
        I think (someone|somebody) (stole|took|has) <mycard>
        (someone|somebody) (has|took|walked off with|picked up) my card and (is using it|has been using it|is spending my money|might use it|I need it <block>ed)
        my (wallet|purse|bag) was stolen[, I need to <block> my card|, stop all my cards|, what about my card]
        my card (is lost or stolen|was lost or stolen|could be lost or stolen|may have been stolen)[, what do I do]?
        a lost or stolen card, (what do I do|how do I report it|who do I tell)?
        I need (a new card|a replacement card|a new one) because (mine was stolen|my card was stolen|the old one got stolen)
        I don't have my card any more, (it was stolen|someone took it|a thief has it)
        ~somebody bumped into me <somewhere> and now my card is gone
        ~my flat was broken into and my card is gone
        ~the police told me to ring you because my bag was taken
        ~my car window was smashed and my purse with the card is gone
        ~left my bag for a second and someone went off with it, cards and all
        is my money safe (if|now that|after) my card (was stolen|is stolen|has been stolen)?
        what's the number to (call|ring) for (a stolen card|stolen cards|reporting a stolen card)?
        my card was taken (from my bag|from my pocket|from my car|from my locker|out of my desk)[ {ago}]
        stolen card[, please help|, need it blocked|, what do I do]
    """,
    "cards/pin": """
        (my PIN|the PIN) (has to|needs to|must|should) (be changed|change)[ as soon as possible|, how| because I don't feel safe|, where]?
        (what|where) (do I need to do|must I go|should I go|do I have to go|can I go) (for a new PIN|to get a new PIN|to have my PIN changed|to change PIN|for a PIN change)?
        (I'm|I am) (looking|trying|wanting|hoping) to <pinchange>[, how| but don't know how|, where do I go| in the app]?
        +<howdoi> <pinchange>?
        +<howdoi> <pinchange>[ please| myself| in the app| online| at an ATM| without calling]?
        +where (can|do|should) I (go to |)<pinchange>?
        +<iwant> <pinchange>
        <iwant> <pinchange>[, how| because I don't like it| because it is hard to remember| to one I can remember| as someone saw it]?
        <canyou> (help me <pinchange>|change my PIN|let me <pinchange>|give me a new PIN|change my PIN for me)?
        (can|could|may) I <pinchange> (at an ATM|at a cash machine|at any cash machine|in the app|online|over the phone|from abroad|while abroad|at a branch|on the website|through my phone|from my phone|here)?
        can you change your PIN (at an ATM|at a cash machine|online|in the app|abroad|anywhere)?
        (do I have to|must I|do I need to) (go to|visit|be at|use|call) (a bank|a branch|an ATM|a cash machine|the bank|you) to <pinchange>?
        I (don't like|hate|can't remember|don't trust|am not happy with) (my PIN|the PIN you gave me|my current PIN|the PIN that came with my card), (how do I change it|can I change it|I want another|can I pick another one)?
        (someone|my ex|a friend|somebody|my son|a colleague) (knows|saw|has seen|found out|guessed) my PIN, (can I change it|I want to change it|how do I change it|I need a new one)
        how (long does it take to|easy is it to|often can I|many times can I) <pinchange>?
        (which|what) (ATMs|cash machines|machines|ATM) (can I use to|let me|allow me to|do I use to) <pinchange>?
        is (it (free|easy|allowed|possible|safe) to <pinchange>|changing my PIN (free|easy|allowed|possible|safe))?
        (what|which) is the (easiest|best|quickest|fastest) way to <pinchange>?
        I'm (travelling|abroad|on holiday|out of the country|overseas|in {place}), (can I|how do I|is it possible to) (change my PIN|<pinchange>)?
        my PIN (is too easy|is too hard to remember|isn't secure|is too obvious|needs changing|should be changed|is not safe any more), (how do I change it|can I change it|what do I do)?
        (where|how) (in the app|on the app|in the settings|on your site) (do I|can I) <pinchange>?
        I (just got my card|received my card|got a new card), (how do I|can I|where do I) (change the PIN|<pinchange>|set the PIN|set up a PIN|choose the PIN)?
        can I (have|choose|pick|use|set) (my own|a different|another|the same|my own personal) PIN[ for my card| on my new card]?
        (what are the steps|what steps are there|what do I need|give me the steps|instructions) (for changing|to change|in changing) (my|a|the) PIN[ please]?
        (PIN change|changing my PIN|change of PIN|change PIN)[, how|, how does it work|, where do I do it|, please| please help]
        (cannot|can't|unable to|trouble|having trouble) (find where to change|work out how to change|changing|change) my PIN
        <cantdo> <pinchange>
        I need (a PIN change|my PIN changed|a new PIN|a different PIN|to know how PIN changes work)
        my PIN, I want it changed
        (would it be possible|will I be able|would I be able) to <pinchange>[ soon| today]?
        is there (an option|a setting|a place|any way|somewhere|a menu) (in the app )?(to|where I can|for me to) <pinchange>?
        (I forgot my PIN|I don't remember my PIN|can't remember my PIN) and (want to change it|would like to set a new one|need to change it)
        ~my PIN is my birthday, that's not clever, is it
        ~the number I type at the cash machine is too easy to guess
        ~I'd rather have four digits that I can remember for my card
        ~the PIN you sent me is impossible to remember
        how does (one|somebody|a customer) (change|update|reset) (a|the|their) PIN?
        do you (allow me to change|let me change|offer changing|let people change) (my|the) PIN[ abroad| in the app| online]?
        where are PIN changes (done|made|possible)?
        what if I want (to change my PIN|a different PIN|a new PIN)?
        can I change the PIN (you gave me|that came with the card|on my debit card|for my card|of my account|I have now)?
        (update|reset|change) PIN (on|for) (my|a|the) card?
        I'd prefer (a different PIN|another PIN|to use a PIN of my choice), (how|can I do that|is that possible)?
        should I change my PIN (regularly|at a cash machine|at a branch|before travelling) and how?
    """,
    "cards/contactless": """
        (is my card|could my card be|maybe my card is|I think my card is) (broken|damaged|faulty), (contactless|tapping|tap to pay) (isn't working|doesn't work|won't work|has stopped working)?
        I (used|have been using|was using) contactless (until now|until {ago}|all week|for {span}) and now it (doesn't work|is not working|fails|won't let me)
        (my|the) card (is fine|is new|isn't expired) (but|so why does) contactless (does not work|won't work|fail|is not working)
        my contactless (payment|transaction|card) was (declined|refused|rejected|denied)[ at {merchant}| on the bus| when I tapped]<help>
        (contactless|tapping|tap to pay) (gets|got|keeps getting|is being|was) (declined|refused|rejected)[ every time| at {merchant}| but the chip works]<help>
        (I get an error|I get declined|it says declined|it asks for my card) (when|each time|every time) I (use contactless|tap my card|pay contactless|try contactless)
        (unable to|can't|not able to|I am unable to) (pay|use my card|use the card|make payments) (contactless|contactlessly|by contactless|with contactless|by tapping)[ any more| anywhere]
        why can I not (tap|use contactless|pay contactless|pay by tap)[ with my card| any more]?
        +<tap> (is|is|has|just) (not working|not functioning|stopped working|broken|failing|no longer working|gone wrong)[ on my card| with my card| today]<help>
        +my <tap> <broken>[ {ago}| any more| at all]<help>
        +why ((is|isn't) (<tap>|my <tap>) working|(does|doesn't|won't|did) (<tap>|my <tap>|the contactless on my card) (not work|work|stop working|keep failing))[ any more| today| at {merchant}]?
        (my card|the card|my debit card|my new card) (won't|doesn't|will not|can't|isn't|no longer) (do|let me use|let me pay|allow|accept|take|support|work with|doing) contactless[ payments| any more]?
        <cantdo> (use|pay by|pay with|make|get to work) (contactless|contactless payments|tap to pay)[ with my card| any more| on the bus| at {merchant}]
        I (can't|cannot|couldn't|wasn't able to) (tap my card|tap to pay|tap|pay by tapping|pay with a tap)[ at the till| at {merchant}| on the bus| today]
        (tapping|when I tap|each time I tap|tapping the reader with) my card (doesn't work|does nothing|gives an error|it fails|never works|nothing happens|it beeps and fails|it says try again)
        what('s| is) wrong with (my contactless|the contactless|contactless on my card|my contactless card|the tap feature)?
        how do I (fix|get|make|turn on|activate|enable|set up|switch on|re-enable) (contactless|my contactless|contactless on my card|the contactless function)[ again| working| payments]?
        I tried (to use|using|to pay with|paying by|to pay by) (contactless|my contactless|tap)[ {ago}| at {merchant}] (and|but) it (didn't work|failed|wasn't accepted|was not working|wouldn't work|did nothing)
        (contactless|my contactless card|tap to pay) (worked|was fine|used to work) (before|until yesterday|until {ago}|last week) (but|and) (now it doesn't|not any more|stopped|it fails now)
        (the machine|the reader|the terminal|the till|the bus) (won't|doesn't|didn't|will not) (read|recognise|accept|detect|pick up|take) my (contactless|contactless card|card when I tap|card contactless|card when I tap it)
        I (always|still|keep having to|have to|am always asked to|must) (insert my card|put my card in|use chip and PIN|put it in the machine) (because contactless|as contactless|since contactless|because tapping) (fails|doesn't work|isn't working|won't work)
        why (do I|must I) (always|still|have to) (insert my card|put my card in|use the chip) (instead of tapping|instead of contactless|rather than tap)?
        is (contactless|my contactless|the contactless|the chip for contactless) (broken|down|disabled|blocked|faulty|turned off|damaged|working)[ on my card| today]?
        (what should I do|what do I do|what can I do|any advice) (if|when|now that) (contactless|my contactless|tap to pay) (doesn't work|isn't working|stops working|fails|won't work)?
        my contactless (hasn't|has not|isn't|has never|never) (been working|worked|working)[ since {ago}| for {span}| in shops| from the start]
        contactless (failed|didn't work|stopped working|wouldn't work|was not accepted) (at {merchant}|on the bus|on the tube|at the supermarket|in a shop|in {place}|this morning|twice today|again)<help>
        (could|can) you (fix|check|look at|help with|see why|tell me why) my contactless[ please| payments| not working| is failing]?
        (there's|there is|I have|having) (a problem|an issue|trouble|problems) with (my contactless|contactless payments|the contactless feature|paying contactless|tapping my card)
        the contactless (feature|function|part|symbol|chip|side|option) (of|on) my card (doesn't work|is not working|seems broken|has stopped working|won't work)
        (do I need|is it necessary|must I) (to do something|to activate anything|a PIN payment first) (before contactless works|to use contactless|for contactless)[, it isn't working]?
        my card (works|is fine|goes through) (with the chip|with PIN|when I insert it|in the machine) but (not contactless|contactless doesn't|not when I tap|tapping fails|the tap doesn't)
        how come (I can't|my card doesn't|my card won't) (use contactless|do contactless|tap|work contactless)[ any more]?
        I need (a new card|a replacement|help) because (contactless|the contactless|tapping) (is broken|doesn't work|stopped working|isn't working)
        contactless not working<help>
        (no|still no) contactless on my card, (why|please fix|what's going on)?
        ~I hold my card over the reader and nothing happens
        ~I wave my card at the machine and it just beeps red
        ~tried to tap through the gates on the tube and they stayed shut
        ~the cashier says my card has to go in the slot as it won't tap
        ~the queue behind me was furious because my tap wouldn't register
        why was my contactless (payment|card|transaction) (not working|not accepted|failing|not going through)[ today| at {merchant}]?
        (new card|I got a new card|my new card came) (but|and) contactless (doesn't work|isn't working|won't work|is dead)
        does (my card|the card) (have|do|support) contactless, because it (doesn't work|isn't working|won't tap)?
    """,
    "payments/declined": """
        (I used|I've used|my card worked) (my card |it |)(before|yesterday|last week|this morning)[ without a problem| with no trouble| just fine] (but|and) now (it's declined|it gets declined|it was declined|the payment was rejected|it's refused)
        (my|the) (payment|purchase|card) (isn't|is not|wasn't|was not) (accepted|approved|authorised|going through|successful)[ <shop>| today]<help>
        (why|how come) (do|does|did|would) (you|the bank|the system|shops|the machine|it) (keep |)(decline|declining|reject|rejecting|refuse|refusing) my (card|payment|payments|purchase)?
        (what's|what is) (wrong|up|going on|the problem|the issue|happening) with my card, (it was declined|it got declined|it keeps being declined|payments are rejected|it's been refused)?
        the (payment|purchase|transaction) I (tried to make|tried|attempted|wanted to make)[ <shop>] (was|got|has been) (declined|rejected|refused|denied)
        +<cardpay> (was|has been|got|is being|keeps being|keeps getting|is) <declined>[ {ago}| <shop>| again]<help>
        +why (was|is|has|did) <cardpay> (<declined>|being <declined>|been <declined>|get <declined>)[ <shop>| {ago}]?
        +why did (my card|my payment|the payment|my card payment|my purchase) (get declined|not go through|fail|get refused|get rejected|not work)[ <shop>| today]?
        my (card|payment|card payment|debit card) (didn't|did not|won't|doesn't|wouldn't|isn't) (go through|going through|get accepted|work for a payment)[ <shop>| {ago}]<help>
        I (tried|was trying|attempted|wanted) to (pay|buy something|use my card|make a payment|make a purchase|pay with my card|buy groceries|book a hotel) <shop> (but|and) (it was <declined>|my card was <declined>|the payment failed|it got <declined>|it didn't go through|the payment was <declined>)
        (the shop|{merchant}|a shop|the website|the restaurant|the machine|an online store|the hotel) (<declined>|wouldn't accept|would not take|refused|rejected|didn't accept|won't take) my (card|payment|card payment)[ {ago}]<help>
        (I have|there is|there's|I've got) (enough|plenty of|more than enough|sufficient) (money|funds|balance)[ in my account], (so why was|why is|but) (my card|my payment) (declined|refused|rejected|being declined|was declined)
        my card was declined (even though|although|but|despite|when) (I have money|I have enough funds|there's money in my account|my balance is fine|having funds|there is plenty on it)
        my {amount} payment[ <shop>] (was|got) <declined><help>
        (card declined|payment declined|card payment declined|declined payment|declined card)[, why| at {merchant}| online| today| again]<help>
        (what|which|what is the) (reason|reasons) (is there |are there |was there |)(for|why) (my card being declined|my payment being rejected|my card was declined|a declined payment|my payment was declined)?
        what (does it mean|should I do|do I do|can I do|happened) (if|when) my (card|payment|card payment) (is declined|was declined|gets declined|got rejected|didn't go through)?
        (can|could) you (tell me|explain|check|find out|look into|see) why my (card|payment|card payment|purchase) (was declined|was rejected|got refused|didn't go through|isn't going through|keeps getting declined)[ please]?
        how come my (card|payment|transaction) (was|got|keeps getting|is being) <declined>[ <shop>]?
        is there (a problem|something wrong|a block|an issue|a hold) (with|on) my card, (it was declined|it got declined|my payment was rejected|it keeps being declined|payments are refused)
        my card (keeps|kept|is always) (getting declined|being declined|getting rejected|being refused|failing when I pay)[ <shop>]<help>
        I (got|keep getting|saw|received) (a declined message|a message that my payment was declined|an error that my card was declined|a payment declined notice)[ <shop>]<help>
        I (was|am) (not able|unable) to (pay|make a payment|complete my purchase|buy anything) with my card[ <shop>]<help>
        I can't (pay|make a payment|buy anything|pay for things|complete a purchase) with my card[ <shop>], it (gets|is|was|keeps getting) (declined|rejected|refused)
        my card (isn't|wasn't|is not) (accepted|being accepted|working for payments|working when I pay)[ <shop>][, it says declined]
        my (online|internet|card|first|last) (payment|purchase|order|transaction) (was|has been|got) <declined>[ {ago}]<help>
        (twice|two times|three times|several times) (today|now|this week) my card (was|has been|got) <declined>[ <shop>]
        I've (just had|had) my card <declined>[ <shop>][, why|, what's going on]?
        <shop> my card was <declined>[, why|, what happened|. I don't understand why]?
        why (won't|doesn't|can't|wouldn't) my card (go through|get accepted|let me pay|make the payment)[ <shop>]?
        (please explain|I don't understand|no idea|I'd like to know|tell me) why my (card|payment) (was declined|got declined|has been declined|is being declined|was rejected)
        has my card been (blocked|frozen|stopped)[,] (it was|because it was|since it got) <declined> <shop>?
        are you (declining|blocking|rejecting) my (payments|card|purchases|card payments)[ <shop>]?
        did you (decline|reject|block|refuse) my (payment|card|purchase)[ <shop>]?
        the (cashier|waiter|shop assistant|man at the till) said my card (was declined|had been declined|was refused|didn't go through)
        ~I had to leave my shopping behind because my card wouldn't go through
        ~so embarrassing at dinner, the card machine said no
        ~the payment page keeps telling me to contact my bank
        ~had to pay cash {ago} since my card was refused
        ~I tried my card three times <shop> and each time it said no
        (card|payment) not going through[ <shop>]<help>
        my card has been (rejected|declined|refused) (by|at) (a shop|{merchant}|an online shop|a merchant|several shops)[, can you help]?
        (why|how come) am I getting (declined|rejected|a declined card|payment declined)[ <shop>]?
        my card got declined[ in {place}| abroad| while travelling| on holiday]<help>
        my debit card payment (failed|has failed|did not complete|fails every time)[ <shop>]<help>
    """,
    "payments/refund": """
        (I was told|they told me|{merchant} told me|I was promised) (a refund|my refund|the refund|my money) (was|had been|would be) (sent|issued|processed|paid|in my account)[ {ago}] (but|and) (I don't have it|it isn't there|nothing has come|I can't see it|it's not showing)
        my refund (is|was|has been) (pending|processing|approved|issued|confirmed)[ {ago}| for {span}] (but|and) (I don't have the money|it isn't in my account|it doesn't show|it never came)
        (is|was|has) (there a refund|my refund|a refund) (from {merchant}|in my account|on its way|been received|come in|there)[ yet]?
        (I've|I have) (waited|been waiting) (long enough|for ages|too long|{span}) for (my refund|a refund|the refund to show|my money back from {merchant})
        +(where is|where's|when will I get|what happened to|when do I get|what about) my <refund>[ from {merchant}]?
        +my <refund>[ from {merchant}] (hasn't|has not|still hasn't|has still not|didn't|isn't) (shown up|arrived|come|come through|appeared|been credited|been paid|show up|showing up|showing|turned up|gone in)[ yet| <inacct>]
        +why (is|is) (my refund|the refund|a refund) (not showing|not showing up|not there|not in my account|missing|so late)[ <inacct>| yet]?
        I (haven't|have not|still haven't|never|still have not) (received|got|seen|had) (my|the|a) <refund>[ from {merchant}| yet| that I was promised]
        <seller> (refunded me|gave me a refund|sent my refund|issued a refund|processed a refund|said they refunded me|has refunded me|made a refund) {ago} (and|but) (it's not there|I can't see it|it hasn't arrived|it isn't showing|nothing has come|I still don't see it|it's still missing|it hasn't shown up)
        <seller> (says|said|told me|claims|confirmed) (they|it) (refunded me|sent the refund|gave the money back|issued my refund|have refunded the money|processed my refund)[ {ago}] but (I can't see it|it's not in my account|it isn't showing|I don't have it|nothing shows|I haven't got it|it is not on my statement)
        I (asked for|requested|was promised|was given|got|am expecting|applied for|have been waiting on) a refund {ago} (and|but) (it's not|it still isn't|it isn't|it hasn't been) (there|here|showing|in my account|credited|on my statement)
        how long (does|do|will|should) (a refund|refunds|my refund|the refund|it take for a refund|it take for my refund to) (take|take to show up|take to arrive|take to appear|show up|come through|arrive|take to process)[ <inacct>]?
        I (returned|sent back|took back) (an item|something|a jacket|some shoes|a purchase|my order|the goods|a phone|a dress)[ to {merchant}] {ago} (and|but) (no refund|the refund hasn't come|I have no refund|there's no refund yet|still no refund|I didn't get my money back|where is my money)
        I (cancelled|returned) (my order|a booking|my flight|a purchase|a hotel|an order)[ {ago}| with {merchant}] (and|but) (the money isn't back|the refund isn't showing|no refund has come|haven't got my refund|I don't see the refund|the refund is missing)
        (still no|no|no sign of|any news on|still waiting for|still waiting on|waiting for) (my |a |the )(refund|money back|refund from {merchant}|{amount} refund)[, it's been {span}]
        it('s| has) been {span} (and|but|since the return and) (I still don't have my refund|the refund isn't here|no refund|my refund hasn't come|I haven't seen my refund|the refund is not showing)
        I('ve| have| am| was) (been waiting|waited|still waiting) {span} for (my|a|the) refund[ from {merchant}| and it is not here]
        (can|could) you (check|look into|see|find out|tell me|chase) (where my refund is|my refund|why my refund isn't showing|what happened to my refund|the status of my refund|my missing refund)[ please]?
        (the|my) refund of {amount}[ from {merchant}] (is missing|hasn't come|isn't showing|has not arrived|isn't in my account|is not there)
        (my refund|the refund|my {merchant} refund) is (missing|late|overdue|lost|nowhere to be seen|not there|not showing|not visible|taking too long|taking forever)<help>
        I (don't|can't|still don't|cannot|do not) see (my|the|a|any) refund <inacct>[ yet| from {merchant}]
        I (should have got|was supposed to get|was meant to receive|was expecting|ought to have had) (a refund|my refund|the refund) (by now|{ago}|from {merchant}|last week)[ and it's not there]
        (when|how soon) (will|should|does|can) (my refund|the refund|a refund|the money from a refund) (show up|be in my account|arrive|appear|be credited|come through|go in)?
        (is it (normal|usual) (for a refund to take|that a refund takes|that my refund takes) ({span}|so long|this long|more than a week)|why does (a refund|my refund|the refund) take (so|this) long)?
        a (merchant|shop|store|seller) (refunded|has refunded|gave back|returned) (my money|me|a payment|my purchase)[ {ago}] (but|and) (it's not showing|it isn't in my account|I can't see it|my balance hasn't changed|nothing has been credited)
        what (should I do|do I do|can I do) (if|when) (my refund|a refund|the refund) (doesn't show up|hasn't arrived|is missing|isn't there|doesn't come|hasn't shown up)?
        (has|did|have you got|have you received) my refund[ from {merchant}| of {amount}] (come|arrived|come in|gone through|been processed|yet|or not)?
        my (statement|balance|account|app) (doesn't|does not|still doesn't|didn't) show (my|the|a) refund[ from {merchant}| yet]
        refund (not showing|not received|missing|not in my account|not arrived|hasn't come|not there|still pending)[, why|, please help| from {merchant}]
        I (got|was given|received) a refund (from {merchant}|of {amount}|for my order) but (it's not on my account|it doesn't appear|my account doesn't show it|I can't find it|it never arrived)
        why (haven't|don't|didn't) I (got|have|received|get|see) my <refund>[ yet| from {merchant}]?
        I (need|want) to know (where my refund is|why my refund isn't here|why the refund is not showing up|when I'll get my refund|what happened with my refund)
        {merchant} owes me {amount} (for a return|and says it was refunded|as a refund), (but it's not there|it isn't in my account|where is it)?
        (the money|my money) (from|for) (my return|the item I returned|the cancelled order|the refund|my cancelled booking) (hasn't come|isn't back|is not in my account|hasn't been credited|is still missing)
        how do I (get|find|trace|track|chase|check on) (my refund|a refund that hasn't come|my missing refund|the refund I'm owed)?
        I think (my refund is lost|my refund went missing|something is wrong with my refund|you haven't put my refund in)
        ~the shop shows the money as paid back, my balance says otherwise
        ~I sent the shoes back {ago} and my account is exactly as before
        ~{merchant} says to ask my bank, as they paid me back {ago}
        ~nothing has been paid back yet though the return was accepted {ago}
        ~they took my return {ago} but the {amount} never came back
        where did my refund go[, it's been {span}]?
        (do|does) (refunds|a refund) (usually|normally|always) take (this long|so long|{span}|more than a week)?
        there is (no|still no) refund <inacct>[ from {merchant}| after {span}]
        I can't find (my|the) refund[ from {merchant}| <inacct>][, has it been processed|, when will it come]?
    """,
    "payments/cancel_transfer": """
        (I need|I want|I'd like) (the|a|my|that) (transfer|bank transfer|money transfer) (I made |I sent |)(to be |)(cancelled|stopped|reversed|undone|revoked)[ as soon as possible| right away| immediately| before it goes through]
        (the|my) (transfer|bank transfer|payment to a person) (needs|has) to be (cancelled|stopped|reversed|undone)[ please| urgently| right away]
        (how|what) (can I do|do I do|do I have to do|would I do) (to get a transfer reversed|to have a transfer cancelled|to stop a transfer|to take back a transfer|to cancel a transfer I made {recent})?
        I (made|did|sent) a transfer[ {recent}] (and|but) (I need to cancel it|want to cancel it|would like it reversed|now I want it back|it has to be stopped|I've changed my mind)
        (can|could|will) you (return|bring back|retrieve|get back|send back) (the|my) (money|{amount}|transfer) (I sent|I transferred|from the transfer) (to the wrong account|to the wrong person|by mistake|accidentally)[ {recent}]?
        +<howdoi> <cancel> (a|my|the) <transfer>?
        <howdoi> <cancel> a <transfer> (I made|I just made|I've made|that I made|I sent|to a friend|already sent|that has gone out)[ {recent}]?
        +(can|could) I <cancel> (a|my|the|that|this) (transfer|transfer|bank transfer|payment I made to someone|money transfer)[ {recent}| now| please| I made| I just made]?
        <canyou> <cancel> (my|a|the|this|that) <transfer>[ I made {recent}| now| right away| I just made]?
        +<iwant> <cancel> (a|my|the|this|that) (transfer|transfer|bank transfer|transfer I made|transfer to someone)[ {recent}| I made {recent}| please| immediately]
        I (made|sent|did|put through) (a|my) (transfer|bank transfer|payment|transfer of {amount}) <oops>[ {recent}], (can I cancel it|can you stop it|how do I cancel it|please cancel it|how do I get it back|can it be cancelled|can I undo it|what do I do)?
        I (sent|transferred|paid|wired) ({amount}|money|some money|funds|the money) <oops>[ {recent}][, can you stop it|, how do I cancel|, please reverse it|, can I undo it|, I need it back|, help]?
        I (accidentally|mistakenly|wrongly|stupidly|just) (sent|transferred) (money|{amount}|funds) <oops>[, cancel it please|. How do I reverse this|, can I get it back|, what can I do]?
        ((is it possible|is there any way|is there a way|would it be possible|is it too late) to|can I still) <cancel> (a|my|the) <transfer>[ I made {recent}| after sending| I just sent]?
        I['ve| have] (entered|typed|put in|used|gave) the wrong (account number|details|sort code|amount|account details|recipient)[ for a transfer| on my transfer], (how do I cancel|can I cancel it|can you stop it|please cancel the transfer|I need to cancel)?
        I (changed my mind|no longer want|don't want) (about|to make|to go through with|) (a|the|that|my) transfer[ I made {recent}], (cancel it please|can I cancel it|how do I stop it)?
        (cancel|stop|please cancel|please stop|urgently stop|reverse) (my|the|a|this|that) (transfer|last transfer|bank transfer|transfer from {recent}|pending transfer)[ please| now| immediately| before it goes]
        how (long|much time) (do I have|have I got) to <cancel> (a|my) transfer?
        I need (a transfer cancelled|my transfer cancelled|to get a transfer back|my transfer stopped|you to cancel my transfer|a transfer reversed|help cancelling a transfer|to cancel this transfer asap)
        (I made a mistake|I messed up|there was a mistake|there's an error) (with|on|in) (a|my) (transfer|bank transfer)[, how do I cancel it|, I need to cancel|, cancel it please|, can you reverse it]?
        (what|what do I do|what can I do|what should I do|what happens) if I (want to cancel a transfer|need to cancel a transfer|sent money to the wrong account|transferred to the wrong person|made a wrong transfer)?
        (can|could) (a|the|my) (transfer|bank transfer) be (cancelled|stopped|reversed|undone|recalled|called back)[ once sent| after it is sent| if it's pending]?
        I (transferred|sent) {amount} to (my landlord|a friend|my brother|the wrong account|someone|my old account) {recent} (and want it back|and need to cancel it|by mistake|, please stop it|but I need to cancel)
        the (transfer|payment) I (made|sent|set up) {recent} (was a mistake|is wrong|was to the wrong account|should be cancelled|needs to be stopped|must not go through)[, cancel it please|, can you stop it]?
        <cantdo> (cancel|stop|undo|reverse) (a|my|the) (transfer|bank transfer|transfer I made)[ in the app]
        where (can|do) I (cancel|stop|undo) (a|my) (transfer|bank transfer|pending transfer)[ in the app]?
        (please|urgent|help)[,] (I need to cancel a transfer|stop the transfer I made|cancel the transfer I just made|I sent money to the wrong person|my transfer has to be stopped)
        (the|a) transfer (went|is going|was sent|is about to go) to the wrong (account|person|place)[, how do I cancel|, stop it please|, can I get it back]?
        I want my (transfer|{amount} transfer|last transfer) (cancelled|stopped|reversed|undone|back)[ please| now]
        (how do I|can I) (get my money back|get the money back|retrieve my money|get back money) (from|after) (a transfer to the wrong account|a wrong transfer|a transfer I made by mistake|a mistaken transfer)?
        transfer cancellation[, how|, please| please, it was a mistake|, how does it work]
        (do you|does the app|does the bank) (let me|allow me to|allow people to) cancel (a transfer|transfers|my transfer)[ after sending]?
        I (have|had) (a|one) transfer (to|I'd like to|that I want to) (cancel|be cancelled|get cancelled|undo)
        (wrong account|wrong person|wrong amount), (cancel my transfer|please stop my transfer|I need to undo the transfer|can you reverse my transfer)
        I sent too much (in a transfer|money in my transfer|to my friend)[ {recent}], (can I cancel|cancel it please|can you reverse it)?
        I (made|sent) the same transfer twice, (cancel one|can I cancel one of them|please stop the second)
        (can|how can|could) (we|you|I) stop a (transfer|payment to someone) (from going through|before it goes out|that's already gone|in progress)?
        ~I pressed send too quickly on a transfer {recent} and it must not arrive
        ~oh no, I've just paid the wrong Smith {amount} by transfer
        ~my {amount} is on its way to an account I mixed up
        ~I think I'm being scammed, I transferred {amount} {recent} and want to stop it
        ~one wrong digit in the account number and now my rent is going to a stranger
        undo (my|the|a) (transfer|last transfer|bank transfer)[ please]?
        would you be able to (cancel|stop|reverse) a transfer[ for me| I made {recent}]?
        the wrong (person|account) (got|received|will get) my transfer, (can it be cancelled|can you reverse it|how do I undo it)?
    """,
    "cash/withdrawal_not_recognised": """
        (I think|I believe|I'm afraid|I suspect) (my card|my card details|my account|my PIN) (was|has been|is|must have been) (stolen|cloned|copied|hacked|compromised) (because|as|since|,) (there's a cash withdrawal I didn't make|someone withdrew cash|I see withdrawals that aren't mine|money was taken from an ATM)
        +(someone|somebody) (has stolen|stole|got hold of|has|copied) my (card|card details|card and PIN) and (withdrew|is withdrawing|took out|has taken out|has been taking out) (cash|money|{amount})[ at an ATM| from an ATM| {ago}]<help>
        I (have|still have|never lost|haven't lost) my card (but|yet|and yet) (someone withdrew cash|there's a withdrawal I didn't make|money has been taken out at an ATM|cash was taken with it)
        (my account|my statement|the app|it) (is showing|shows|lists|has) (cash|money|{amount}|a withdrawal) (that |)I (didn't|did not|never) (take out|withdraw|make|get)[ {ago}]
        (there are|I see|I noticed) (withdrawals|ATM withdrawals|cash withdrawals|transactions at ATMs) (not made by me|that were not made by me|I know nothing about|I didn't authorise|on my account that aren't mine)<help>
        (I don't|I do not|I can't) (remember|recall) (making|taking out|doing) (a|this|that|the) (withdrawal|cash withdrawal|ATM withdrawal|cash)[ of {amount}| in {place}| {ago}]
        (money|cash) (came|went|has gone|was taken) out of my account (at|through|from|via) (an ATM|a cash machine|a cashpoint) (and|but) (I wasn't there|it wasn't me|I didn't do it|I didn't take it)[ {ago}]
        (what|who) (is|made|did) (this|that|the) (ATM|cash|cash machine) withdrawal[ of {amount}| in {place}][ on my account|, I didn't|? I don't recognise it]?
        (fraud|theft|help|scam)[!,] (cash was withdrawn|money was withdrawn|someone took cash out) (from my account|with my card)[ at an ATM| {ago}]
        +(there is|there's|I see|I have|I can see|I found|I've noticed|I noticed) (a|an unknown|a strange|some kind of) <cash>[ of {amount}][ in {place}] (I didn't make|I did not make|I never made|I don't recognise|that isn't mine|that wasn't me|I know nothing about|that I didn't do|I don't remember|I didn't authorise)[ <inacct>]<help>
        +I (didn't|did not|never|certainly didn't|definitely did not) (make|do|authorise|perform) (this|that|a|the) <cash>[ of {amount}| in {place}| {ago}]<help>
        +I don't (recognise|recognize|remember|recall|know) (a|this|the|that) <cash>[ of {amount}| on my account| in the app| on my statement| {ago}]<help>
        (someone|somebody|who|a stranger) (has taken|took|withdrew|has withdrawn|is withdrawing|got) (cash|money|{amount}|cash out|money out) (from|out of) my account (at an ATM|at a cash machine|from a cashpoint|through an ATM|in {place})[ {ago}]<help>
        (why|how come) (is there|do I have|does my app show|does my statement show|does it say there was) (a|an) <cash>[ of {amount}| in {place}] (I didn't make|that I didn't make|I don't recognise|that I didn't do|I never made)?
        {amount} (was|has been|were) (withdrawn|taken out|taken out in cash) (from my account|at an ATM|from a cash machine|in {place}|from an ATM) (and it wasn't me|but it wasn't me|and I didn't do it|but not by me|that I didn't make|without me)[ {ago}]<help>
        (my account|my app|my statement|my balance|the app) shows (a|an|some) <cash>[ of {amount}| in {place}| {ago}] (I didn't make|that I never made|that isn't mine|but I didn't do it|that wasn't me|which I don't recognise)
        (someone|somebody) (is using|used|has used|must have used|may have) my (card|account|details) (at an ATM|to withdraw cash|to get cash|to take out cash|at a cash machine|to withdraw money)[ {ago}| in {place}]<help>
        (how|what|what do I do|what should I do|who do I tell) (do I report|do I dispute|do I do about|can I do about|about|if I see|if there is) (a|an) <cash> (I didn't make|I don't recognise|that wasn't me|I never made)?
        (a|an|this) (<cash>) (was|has been) made (on my account|with my card|from my account|in {place}) (that wasn't me|and it wasn't me|without my knowledge|without my permission|but I was at home|but not by me)
        I (was|am) (not in {place}|nowhere near {place}|at home|asleep) (when|but) (someone withdrew cash|the cash was withdrawn|cash was taken from my account|there is a cash withdrawal there)[ {ago}]
        (unauthorised|unauthorized|unknown|unrecognised|fraudulent|strange|suspicious) <cash>[ on my account| in my app| of {amount}| from {place}| {ago}]<help>
        I think (someone|somebody) (has|made|took|did) (withdrawn cash|a cash withdrawal|money from an ATM|an ATM withdrawal) (from my account|on my account|with my card|without me knowing)
        (can|could) you (explain|check|tell me about|look into|refund|reverse|investigate) (a|this|the|an) <cash>[ of {amount}] (I didn't make|I don't recognise|that isn't mine|that wasn't me)?
        (money|cash) (has been|was|is being|keeps being) (withdrawn|taken) (from my account|out of my account) (at an ATM|from a cash machine|in cash|in {place}) (and|but) (I didn't do it|it wasn't me|I have my card|I don't know who did it|not by me)[ {ago}]<help>
        I still have my card (but|and yet|so how did) (someone withdraw cash|there's a cash withdrawal I didn't make|cash was taken out|somebody took cash from my account)
        (my card|my account) was used (for a cash withdrawal|at an ATM|at a cash machine|to take out {amount}|to withdraw cash)[ in {place}| {ago}] (and it wasn't me|but I didn't do it|without me|and I have no idea by whom)
        I (see|have|found) (two|several|three|multiple|some) (cash withdrawals|withdrawals|ATM withdrawals) (I didn't make|that aren't mine|I don't recognise|that were not me)[ from {place}]<help>
        (I have not|I haven't|I never) (withdrawn|taken out|been to an ATM to get) (any cash|{amount}|any money|cash)[ {ago}| recently| in {place}] (but|yet|so why) (my account says I did|there is a withdrawal|it's on my statement|a withdrawal shows)
        there('s| is| are) (cash|money) (missing|gone|taken) from my account (from|through|via|at) (an ATM|a cash machine|a withdrawal|a cashpoint)[ that I didn't use| I never went to]<help>
        who (withdrew|took out|made a withdrawal of) ({amount}|cash|money|this cash) (from my account|in {place}|at an ATM)[ {ago}]?
        (the|a) withdrawal (of {amount}|in {place}|{ago}|on my statement) (was not me|wasn't done by me|isn't mine|is not mine|is something I don't recognise|was not made by me)
        (a|the) (cash machine|ATM|cashpoint) (transaction|entry|payment) (on my account|in my app|for {amount}|on my statement) (isn't mine|wasn't me|is not mine|I don't recognise|I did not do)
        I believe my (card was cloned|account was hacked|card has been copied), (there is a cash withdrawal I didn't make|someone took out {amount} in cash|cash was withdrawn)
        (please|urgent|help)[,] (someone withdrew {amount} from my account|someone took cash from my account|there's a cash withdrawal I did not make|I don't recognise a cash withdrawal)
        (get me|give me|I want) my money back (for|from) (a|the) <cash> (I didn't make|that wasn't me|I don't recognise)
        I want to (dispute|report|contest|complain about|query) (a|an|the) <cash>[ of {amount}| in {place}][ that wasn't me| I didn't make]
        (did someone|has anyone|how did somebody) (withdraw|take out|get) (cash|{amount}|money) (from|out of) my account[ in {place}| {ago}]?
        my money was (withdrawn|taken out at an ATM|taken in cash)[ {ago}| in {place}] (by someone else|and not by me|without my consent|and I don't know by whom)
        withdrawal not (made by me|recognised|mine|done by me)[, {amount}| of {amount}]<help>
        a withdrawal (showed up|appeared|popped up|is listed|has come up) (on my account|in my app|on my statement)[ for {amount}| from {place}] (that I didn't make|and I don't recognise it|but I didn't take out any cash|that I know nothing about)
        (is|could|can) (someone|somebody) (be stealing|taking|have taken) cash (from|out of) my account[ at ATMs| with a copied card]?
        ~I've never been to {place}, yet the app says I took out {amount} there
        ~my card has been in my drawer all week but a cashpoint paid out {amount}
        ~the cashpoint in {place} that's on my statement, I've never used it
        ~how could I have taken out {amount} {ago} when I was in bed with flu
        ~according to my app I was at a cash machine {ago}, I was not
        the app (says|shows|thinks) I (withdrew|took out|got) ({amount}|cash|money)[ {ago}| in {place}| at an ATM] (but I didn't|but I did not|and I didn't|which is wrong)
        I did not (take out|withdraw|get) (this|that|the|any) (money|cash|{amount})[ from the ATM| {ago}| in {place}]<help>
        what is this <cash>[ of {amount}| in {place}][ on my account| on my statement][, I didn't make it|? It wasn't me]?
    """,
    "money/top_up": """
        why (is|was) my (top up|top-up|topup) (not accepted|not going through|not working|not completed|unsuccessful)[ {ago}]?
        (my|the) (top up|top-up|topup) (has been|was|got|is) (reverted|returned|reversed|cancelled|denied|blocked|undone|sent back)[ {ago}][, why|<help>]?
        I (did|made|tried|attempted|just tried) a (top up|top-up|topup)[ of {amount}| {ago}] (but|and) (it failed|it didn't work|it was declined|it got cancelled|it hasn't gone through|it was rejected)
        (I was|I got|I am|I keep being|I keep getting) (declined|rejected|refused|denied) (when topping up|when I top up|for a top up|trying to top up|while topping up)[ with {amount}| today]<help>
        (the|my) (payment|card payment|money) (for|to|in) (my|a|the) (top up|top-up) (failed|was declined|didn't go through|was rejected|was refused)
        (what|why) (happened to|went wrong with|made) my (top up|top-up)[ fail]?
        +my <topup> <failed>[ {ago}]<help>
        +why (did|has|is|was|does) my <topup> (fail|failed|failing|rejected|not work|not working|declined|not go through|cancelled|keep failing)?
        <cantdo> (top up|top up my account|do a top up|top up my balance|make a top up|add money to my account)[ today| any more]
        (top up|topping up|top-up|topup) (is not working|isn't working|doesn't work|keeps failing|won't work|not working|fails every time|failed|has failed|didn't work|failed again)<help>
        I (tried|was trying|attempted|have tried) to top up[ my account| with {amount}| {amount}][ {ago}] (but|and) (it failed|it didn't work|it was rejected|it got declined|nothing happened|the app gave an error|it didn't go through|it was refused)<help>
        why (won't|can't|doesn't|wouldn't) (my top up|the top up|my top-up) (work|go through|complete|be accepted)?
        why won't (you|the app|it|the bank) let me top up?
        (what|what's|what is) (the reason|wrong|happening|the problem|going on) with my (top up|failed top up|top-up)[, it failed|, it won't work]?
        what (do I do|should I do|can I do|happens|does it mean) (if|when) (my top up|a top up|the top-up) (fails|failed|doesn't work|is rejected|was declined|gets cancelled|has failed)?
        (can|could) you (tell me|explain|check|find out|see|look into) why my (top up|top-up|topup) (failed|was rejected|didn't work|was declined|didn't go through|is not working)?
        the (app|system) (rejected|refused|declined|denied|cancelled) my (top up|top-up|topup)[ of {amount}| {ago}]<help>
        my {amount} top up (failed|didn't work|was rejected|was declined|hasn't gone through|was cancelled|didn't complete)[ {ago}]<help>
        (did|has) my top up (fail|failed|go through|work|gone wrong|not work)?
        my top up (failed|was unsuccessful|didn't go through) but (the money was taken|the money left my account|I was charged|the money is gone|the money has gone from my other bank)[ {ago}]<help>
        I('m| am) (having trouble|having problems|struggling) (topping up|with my top up|with topping up|to top up)[ today| for {span}| since {ago}]<help>
        (every|each) time I (try to top up|top up) it (fails|is rejected|gets declined|doesn't work|says failed)
        (top up|top-up) (failed|rejected|unsuccessful|declined|error|denied|problem|cancelled)[, why| again| today| {ago}]<help>
        the top up (I did|I made|I tried)[ {ago}] (failed|was rejected|didn't work|hasn't worked|is not there|did not complete|got cancelled)
        how (do I|can I) (fix|sort out|solve|retry|redo) (a failed top up|my failed top up|a top up that failed|a rejected top-up)?
        (is there|there is|I have) (a problem|an issue|something wrong) with (topping up|top ups|my top up|top-ups)[ today|, mine failed|, it doesn't work]
        are top ups (down|not working|broken|out of order)[ today| right now| at the moment]?
        I (keep getting|got|get|received) (an error|a message that it failed|a failure message|a rejected message) when (topping up|I top up|I try to top up|trying to top up)
        my money (didn't|did not|won't) (load|top up|go in) when I (topped up|tried to top up)[ {ago}]
        my top up (isn't|is not|hasn't been|still isn't) (showing|added|credited|in my account|going through)[, did it fail|. I think it failed]
        (reason for|why the) (top up failure|failed top up|rejected top up|top up rejection)?
        unable to top up[ my account| my card| today]<help>
        top up won't (go through|work|complete|process)[, why|, please help]?
        I need (to top up|help with a top up|money on my card) but (it keeps failing|it's not working|it gets rejected|the top up fails|the app won't let me)
        how come my (top up|top-up) (was|got|has been|keeps being) (rejected|declined|cancelled|refused)[ {ago}]?
        (why|how come) (was|is) (my|the) (top up|top-up) (denied|rejected|cancelled|unsuccessful|not accepted|being refused|not allowed)?
        I topped up[ my account| {ago}| with {amount}] (but|and) (it failed|it was rejected|the money isn't there|it didn't work|it never completed|it was cancelled)
        ~I pressed add money {ago} and all I get is an error
        ~wanted to put {amount} on my account {ago} but the app says no
        ~the money I tried to load {ago} bounced
        ~still have no balance since loading money fails every time
        my account won't top up[, why|<help>]
    """,
    "money/top_up_by_card": """
        (my|the) (card|debit card|other card) (was|is|got|keeps being) (declined|rejected|refused|not accepted) (when topping up|for a top up|when I top up|for my top-up|when I tried to top up|during a top up)<help>
        I (tried|attempted|was trying) to top up (with|using|by|from) (my card|my debit card|a card|my other card|my {amount} card|card)[ {ago}] (but|and) (it failed|it was declined|it didn't work|it got rejected|the top up failed)<help>
        why (did|does|was|won't) (topping up by card|my card top up|top up by card|my top up by card|a top up with my card) (fail|not work|work|rejected|keep failing)?
        (topping up|a top up|top up|my top up) (by|with|from|using) (card|my card|my bank card|debit card|Apple Pay|Google Pay|another card) (failed|doesn't work|isn't working|was rejected|didn't work|keeps failing|is not going through)[ {ago}]<help>
        my card (won't|doesn't|can't|didn't) (work for|top up|let me top up|work when) (top ups|my account|topping up|I top up)
        <cantdo> top up (with|using|by|from) (my card|card|my bank card|my debit card|Google Pay|Apple Pay)
    """,
    "money/top_up_by_transfer": """
        my (bank transfer|transfer) (top up|top-up|topup) (failed|didn't work|was rejected|was returned|didn't go through|has not worked|never completed|was cancelled)[ {ago}]<help>
        I (tried|attempted|wanted) to top up (by|via|with|using|through) (bank transfer|transfer|a bank transfer|my bank|my other bank)[ {ago}] (but|and) (it failed|it didn't work|it was rejected|it was returned|the top up failed)<help>
        why (did|does|was|won't) (topping up by transfer|my transfer top up|top up by bank transfer|my top up by transfer|a top up from my bank) (fail|not work|work|rejected|keep failing|returned)?
        (topping up|a top up|top up|my top up) (by|via|through|with) (bank transfer|transfer|my bank|a transfer|online banking) (failed|doesn't work|isn't working|was rejected|didn't work|keeps failing|was returned)[ {ago}]<help>
        the top up (from|through|via) (my other bank|my bank|my other account|bank transfer) (failed|was returned|was rejected|didn't arrive|bounced|didn't work|got cancelled)[ {ago}]<help>
        <cantdo> top up (by|via|through|with) (bank transfer|transfer|my bank|a bank transfer)
    """,
    "money/exchange_rate": """
        how (do|does) your (rate|rates|exchange rate|exchange rates) compare (with|to) (other banks|the market|a bureau de change|the interbank rate|others|the airport|your competitors)?
        (what|which) (rate|exchange rate) do you use (when|for|if) (converting|I convert|exchanging|converting to|changing) (currencies|money|{currency}|my money|foreign currency|pounds to {currency})?
        how (is|are) (the rate|rates|exchange rates|the conversion rate) (for|on) (foreign currency|{currency}|foreign currencies|payments abroad|overseas purchases) (decided|calculated|set|determined|worked out)?
        (where|how) (can|do) I (learn|read|get information|find out|see) (about |more about |)(your exchange rates|the exchange rate|foreign exchange rates|currency rates)?
        (are|is) (the|your) (exchange rates|exchange rate|rates) (based on|the same as|linked to|tied to|close to) (the interbank rate|the market|Google's|the ECB rate|the Visa rate|the Mastercard rate)?
        I('d like| want| need) to (exchange|change|convert) (currency|currencies|money|pounds to {currency}), (what's the rate|what rate do I get|what is your exchange rate|at which rate)?
        +(what|what's|what is|which) (the |your |today's |the current |)<rate>( for {currency}| for {currency}| today| right now| at the moment| you use| you offer| you give| to {currency}|)?
        +what (<rate>|exchange rate|exchange rates) (do you|will I|would I|do I|does the bank|does my card) (use|get|offer|apply|give|charge|receive)[ for {currency}| abroad| in {place}| on purchases]?
        which <rate> (do you|does the bank|will you|is) (use|apply|used|offer)[ for {currency}| for card payments| when I pay abroad]?
        +how (do you|does the bank|are) (calculate|work out|set|decide|determine|your exchange rates calculated|exchange rates worked out|the rates set|come up with)( your| the|) (exchange rate|exchange rates|rate|rates|conversion)?
        how is (the|your) <rate> (calculated|determined|set|worked out|decided|fixed)?
        where (can|do|could) I (see|find|check|look up|view) (the|your|today's|the current|the latest) (<rate>|exchange rates|rates)[ for {currency}| in the app| before I pay]?
        where do (your exchange rates come from|you get your rates from|the exchange rates come from|you take the exchange rate from|your rates come from)?
        (is|are) (your|the) (exchange rate|exchange rates|rate|rates) (good|any good|fair|competitive|better than others|the best|better than a bureau de change|the same as the interbank rate|fixed|live|up to date|worse at weekends)?
        (do|will|would) I get (a good|the best|a fair|a better|the interbank|the real|the market|the mid-market|the current|the same) (rate|exchange rate)[ for {currency}| abroad| with my card| in {place}| at the weekend]?
        do you (use|give|offer|apply|follow) the (interbank|mid-market|market|Mastercard|Visa|official|real|live|current) (rate|exchange rate)[ for {currency}]?
        (can|could) you (tell me|give me|explain|show me|let me know|help me understand) (the exchange rate|your exchange rate|your exchange rates|how the exchange rate works|what rate I will get|the rate for {currency}|which rate you use)[ please]?
        (does|do|will|when does|how often does|how often do) (the|your) (exchange rate|exchange rates|rate|rates) (change|change daily|update|vary|move|get updated|change at the weekend|change during the day)?
        I (want|need|would like|'d like) to know (the|your|today's) (exchange rate|exchange rates|rate for {currency}|<rate>|conversion rate)[ please| before I travel]
        (how much|how many {currency}) (would|will|do) I get for {amount}[ today| right now| at your rate]?
        how (much is|many pounds is|many {currency} are|much are) (a euro|one dollar|{amount} in {currency}|100 {currency}|{amount})[ today| at your rate| right now]?
        I'm (going to|travelling to|off to|flying to|in) {place}[ soon| next week], what (exchange rate|rate) (will I get|do you use|do I get|applies)?
        what rate (will I get|do I get|is used|applies|do you use) (when I pay in {currency}|for {currency}|abroad|if I pay by card in {place}|at an ATM abroad|when spending abroad)?
        if I (pay|spend|buy something|use my card) (in {currency}|abroad|in {place}), (what|which) (rate|exchange rate) (do I get|is used|applies|will you use)?
        exchange rate[s][ for {currency}| today| please| info| information]?
        (why|how come) (is|are) (your|the) (exchange rate|exchange rates|rate) (so bad|so low|different from Google|changing|so good|different at weekends|lower than the market rate|not the same as the market's)?
        (what's|what is) (the best|a good|the going|the current|the latest) (exchange rate|rate) (for {currency}|to {currency}|right now|today)?
        (what|how) (about|are|good are|fair are) your (exchange rates|rates for {currency}|rates)[ like| these days| compared with others| at weekends]?
        (is there|do you have) (a list|a page|a table|an overview|a calculator) (of|with|for) (exchange rates|your exchange rates|currency rates|the current rates)?
        when is (the exchange rate fixed|the rate set|the exchange rate best|the best time to exchange money)?
        (at|on) what (exchange rate|rate|basis) (do you convert|will my money be converted|is my money exchanged|do you exchange|are my payments converted)[ into {currency}| to {currency}]?
        (is|will) the (exchange rate|rate) (the one|be the one|be that) (on the day|when I paid|at the time of purchase|of the day I pay|when the payment settles)?
        can I (see|know|check|lock in|fix|find out) (the|an|today's) (exchange rate|rate)[ in advance| in the app| for {currency}| before I exchange]?
        (tell me|please tell me|let me know|I'm wondering|just wondering|curious) (the exchange rate|your rate for {currency}|what the exchange rate is|about your exchange rates|what exchange rate you use)
        (your|the) exchange rates, (how are they set|where can I find them|are they good|how do they work|what are they based on)?
        what (is|are) your (exchange rate|exchange rates|rates) based on?
        who (sets|decides|determines|calculates) (the|your) (exchange rate|exchange rates|rates)?
        how (does|do) (the|your) (exchange rate|exchange rates|currency conversion|currency exchange rate) work?
        how do I (find|check|see|know|find out) (the exchange rate|your exchange rates|the current exchange rate|what exchange rate I get|what rate applies)[ for {currency}]?
        what (kind of|sort of|type of) (exchange rate|rate|exchange rates) (do you|can I|will I) (use|offer|get|expect)[ for {currency}| abroad]?
        ~off to {place} next month, how far will {amount} go there with your card
        ~is it cheaper to pay in {currency} with your card or change cash before I go
        ~the bureau at the airport is a rip-off, how do yours compare for {currency}
        ~I'd like to know what {amount} comes to in {currency} with you
        is the exchange rate (better|different|worse|the same) (at weekends|on weekdays|for cash|with your card|than at the airport|in the app)?
        do you have (good|live|competitive|your own|daily|special) (exchange rates|rates for {currency}|rates)?
        I'd like (the|a|some) (exchange rate|information on exchange rates|details of your exchange rate|rate for {currency})[ please]
        converting (pounds|money|{amount}) (to|into) {currency}, what (is the rate|rate do you use|would I get)?
    """,
    "account/verify_identity": """
        (where can I find|is there any|I need|do you have) (information|info|details|more info) (on|about) (verifying my identity|the identity check|identity verification|which documents you need|proving who I am)?
        (what|which) (information|info|details|data|proof) do you (need|want|require) (from me |)(to verify|to confirm|to prove|to check) (my identity|who I am|my ID)?
        (when|why) do I (have|need) to (prove|verify|confirm) (who I am|my identity), and how?
        (do|would) you (verify|check|confirm) my identity (in the app|online|with a video|with my passport|by post)?
        (why|how come) (won't|can't|doesn't|didn't|hasn't) (you|the app|the system|the bank) (verify me|verify my identity|accept my documents|recognise my passport|accept my passport|verified me yet|verified my ID)?
        (what's|what is) (needed|required|necessary) (to <verifyme>|for the identity check|for verification|to be verified)?
        (what|which things|which of my documents) (can|do|should) I use to <verifyme>?
        (who|what) do I (contact|need to show|send|give you) to <verifyme>?
        (tell me|let me know|explain|please explain|I'd like to know) (what you need to verify my identity|how identity verification works|how the identity check works|what documents you need for verification|what I need for the ID check)
        I (can't|don't know how to|have not been able to|am having trouble to|still have to) <verifyme>[ in the app|, what now|, help]
        +<howdoi> <verifyme>?
        +<howdoi> <verifyme>[ please| in the app| online| quickly| without a passport| from home]?
        where (can|do|should|must) I (go to |)(<verifyme>|find the identity check|find info about identity verification|upload my ID|send my documents for verification|submit my ID)?
        +(what|which) (documents|document|ID|papers|proof|kind of ID|identification|forms of ID|information) (do I need|do you need|can I use|are accepted|do you accept|is needed|are required|should I send|do I have to provide|will I need) (to <verifyme>|for the identity check|for identity verification|for verification|to get verified|as proof of identity)?
        what do (I|you) need (to|in order to|so I can) <verifyme>?
        what (is|are) the (steps|process|procedure|requirements|rules) (for|to|of) (<verifyme>|identity verification|verifying my identity|verification|the identity check|verifying who I am)?
        (can|could|may) I (use|send|upload|show) (my passport|my driving licence|a driver's licence|an ID card|a utility bill|my residence permit|a foreign passport|my student card|a photo of my ID) (to <verifyme>|for verification|to prove who I am|for the identity check|to verify myself)?
        <cantdo> <verifyme>[ in the app| with my passport| online]
        why (can't|won't|doesn't|isn't|is) (the app verify me|the app accept my ID|my identity verifying|you verify my identity|the app verify my identity|my verification working|the identity check working|my ID not accepted|my identity not verified)[ yet]?
        (my|the) (identity check|verification|ID check|identity verification|passport photo|proof of identity) (isn't working|failed|was rejected|won't go through|is stuck|is taking long|keeps failing|is not accepted|didn't work)<help>
        how long (does|will) (it take to verify my identity|the identity check take|verification take|identity verification take|it take to get verified|my verification take)?
        (is|has) my (identity|ID|verification) (been verified|verified|verified yet|been checked|complete|approved|done)[ yet]?
        (do I have to|do I need to|must I|should I) (<verifyme>|be verified|upload ID|verify|show ID)[ to use my account| to use the card| before I can top up| now]?
        (can|could) I (use my account|use the card|make payments|open an account|get a card) (without verifying my identity|before verification|without an identity check|without being verified|before my identity is verified)?
        +I (want|need|would like|'d like|'m trying|have) to <verifyme>
        I (want|need|would like|have) to <verifyme>[, how| but don't know how| but have no passport|, what do you need|, where do I start|, please help]?
        <canyou> (help me <verifyme>|verify my identity|tell me how to <verifyme>|explain the identity check|explain how identity verification works|verify me)[ please]?
        I (uploaded|sent|have sent|submitted|gave you) my (passport|ID|documents|driving licence|selfie|proof of address)[ {ago}] (but I'm not verified|and am still not verified|, what's next for verification|to verify my identity but nothing happened|, is my identity verified now)
        I don't have (a passport|a driving licence|an ID card|any photo ID|proof of address), (how do I <verifyme>|can I still <verifyme>|how can I verify my identity|what else can I use to verify)?
        (where is (the identity check|identity verification|the ID verification)[ in the app]|how (is|does) (the identity check|identity verification) (done|work)|when (do I get verified|does the identity check take place))?
        (identity verification|identity check|ID verification|verifying my identity|ID check)[, how does it work|, how|, what do I need|, where do I do it| help| please]?
        (what's|what is) (the best|the easiest|the quickest|the correct|the right) way to <verifyme>?
        (is there|are there) (information|instructions|info|a guide|help|anything|a page) (on|about|for) (how to <verifyme>|the identity check|verifying my identity|identity verification)?
        which (photo|picture|selfie|side of my ID|format) (do you need|should I send|do I upload) (for verification|for the identity check|to verify my identity)?
        I (moved|just moved|live abroad|am from {place}), (how do I verify my identity|can I verify my identity with a foreign ID|what do I need to verify my identity)?
        the app (asks|is asking|wants|keeps asking|tells) me to <verifyme>, (how|what do I do|what do I need|where)?
        I (got|have|received) (a message|an e-mail|a notice) (about|to do|asking for) (verifying my identity|an identity check|identity verification|proof of identity)[, what do I do|, how do I do it]?
        (what|what if|what do I do if|what happens if) (I can't verify my identity|I don't verify my identity|my ID isn't accepted|my identity can't be verified|the identity check fails)?
        do you (accept|take) (a driving licence|foreign passports|an expired passport|an ID card|utility bills|a photo of my passport) (for verification|as proof of identity|for the identity check|to verify my identity)?
        verify (identity|my identity|my ID|myself)[ how| please| help]?
        how (can|do|does) (I|one|the bank|you) (prove who I am|prove my identity|know I am me|confirm my identity|check my identity|show you who I am|verify identity|verify customers)?
        what (do I need to send|do I have to send|should I upload|must I provide|do I upload) (to <verifyme>|for my identity|for the ID check|as proof of identity|so you can verify me)?
        (how|where) (do|can|should) I (upload|send|submit|provide|show) (my ID|my passport|my documents|proof of identity|my identification|identity documents)?
        need (to|help to|to know how to) <verifyme>
        (is it|would it be) (possible|ok|enough) to <verifyme> (online|with a driving licence|without a passport|in the app|at a branch|with a photo|by video)?
        ~the app keeps refusing the photo of my passport
        ~you want proof that I am who I say I am, what shall I send
        ~my selfie never matches my passport according to the app
        ~I have my passport here, where do I show it to you
        ~my account says unverified, what do I have to do
        I need (help|assistance|info|some help) (with|on|about) (verifying my identity|identity verification|the identity check|my verification|getting verified)
    """,
    "account/close": """
        (I'm|I am) (not|no longer) (interested in|going to use|using|in need of) (this account|my account|your services|the account)[ any more], (close it|how do I close it|please delete it|can you close it)?
        (tell me|explain|let me know|show me) (how|what I need|the way) to (close|delete|cancel|terminate|end) (my account|an account|my account with you)[ please]
        (can|could) (I|you) (have|get) my account (closed|deleted|terminated|cancelled|shut)[ please| today| now]?
        +<howdoi> <close>?
        +<howdoi> <close>[ please| for good| in the app| online| permanently| today]?
        +<iwant> <close>
        <iwant> <close>[ please| immediately| today| for good| as soon as possible| now]
        +<canyou> <close>[ for me| please| today| immediately| right now]?
        where (can|do|should) I (go to |)<close>?
        (can|could|may) I <close>[ in the app| online| today| without calling| at any time| over the phone| at a branch]?
        I('m| am) (unhappy|not happy|dissatisfied|fed up|disappointed|not satisfied|done|finished) with (you|your service|your bank|this bank|the service|your company)[,] (and|so) (I want to|please|I'd like to|how do I) <close>
        I (no longer|don't|do not) (need|want|use|require) (my account|this account|the account|your services|an account with you)[ any more][, please close it|, how do I close it|, close it|, can you delete it]?
        (close|delete|cancel|terminate|please close|please delete|shut|shut down) my account[ please| now| immediately| today| for good]
        what (do I need to do|is the process|are the steps|is the procedure|do I do|happens|steps do I take) (to|if I want to|when I|for closing|in order to) (<close>|close an account|leave the bank|end my contract)?
        (what is|what's) the (easiest|quickest|best|fastest|right) way to <close>?
        I('m| am) (moving|switching|changing|going) to (another|a different|a new) bank[,] (so|and) (I want to close my account|please close my account|how do I close my account|need to close this one|I need my account closed)
        how long does it take to <close>?
        is (it|there) (possible|a way|easy|any way|a fee|a cost|a charge) to <close>?
        I want (my account closed|my account deleted|out|to leave|to leave your bank|to stop being a customer|to quit|my account gone|nothing more to do with your bank|to end my relationship with you|my account terminated)[, how do I do that| now| please]?
        (I'm|I am) (leaving|quitting|going to leave|thinking of leaving|done with) (your bank|the bank|you|this bank), (what do I do|how do I close my account|close my account please|how does that work)?
        <cantdo> <close>[ in the app]
        what happens to my (money|balance|data|card|direct debits) (if|when|after) I <close>?
        (I need|I would like|I require|I'd like) (help|assistance) (closing|to close|in closing|with closing) my account
        (closing|deleting|cancelling|terminating) (my|an) account[, how| please|, what do I do|, how does it work]?
        (please|kindly|I kindly ask you to) (terminate|close|delete|end|cancel) (my account|my bank account|my account with you)[ and send me my money| as of today| effective immediately]
        I'd like to (stop using|leave|quit|end|discontinue) (your service|your services|your bank|this bank|my contract with you)[, how]?
        how do I (leave|quit|stop being a customer of|unsubscribe from|get out of|leave) (your bank|this bank|the bank|your service)?
        (do I have to|must I|do I need to) (call|write|visit a branch|give notice|pay|empty my account) to <close>?
        (who|whom) (do I|should I) (contact|talk to|call|speak to) (to <close>|about closing my account)?
        (you've lost|you have lost) (me as a customer|my trust|a customer), (close my account|delete my account|how do I close my account)
        my account (should|must|has to|needs to) be (closed|deleted|terminated|cancelled|shut down)[ today| please]
        (this|your) (bank|service|app) is (terrible|rubbish|useless|awful|a joke|too expensive), (close my account|I want to close my account|how do I delete my account|I'm leaving|cancel my account)
        (account closure|account termination|close account|delete account|cancel account)[ request| please|, how| form]?
        I (opened|made|created) (an account|this account) (by mistake|{ago}|just to try it) and (want to close it|want to delete it|don't need it|would like it closed)
        (can|will|could) (my account be closed|my account be deleted|you remove my account|you close my account) (and my money sent elsewhere|with money still in it|even with a negative balance|at once|today)?
        I have (two accounts|another bank|too many accounts), (please close this one|I want to close one|how do I close this account)?
        ~it's not you, it's me, but I won't be banking here any longer
        ~I've had enough, where do I sign to leave
        ~I've found a better bank, so this is goodbye
        ~I moved abroad and have no use for the account any more
        ~please send me whatever is left in there and forget about me
        is there an option (in the app |)(to|for) (delete|close|closing|deleting|cancel) (my|an) account?
        (how|what) (do I go about|would I need to do about|about) (closing|deleting|cancelling|terminating) my account?
        I['ve| have] decided (to close|to delete|to leave and close|I want to close|to get rid of) my account[, what now|, what's next|, how do I do it]?
        when (can|will|could) (my account be closed|I close my account|you close my account|my account get deleted)?
    """,
}
